//! The `README.md` of an exported checkpoint: YAML front matter and a short text. Not for: scores
//! of a run in full (`html`).

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// What the card says. Empty parts are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelCard {
    /// Name of the model.
    pub name: String,
    /// What it is, in a sentence or two.
    pub description: String,
    /// Language codes.
    pub languages: Vec<String>,
    /// Licence identifier.
    pub license: String,
    /// The encoder it started from.
    pub base_model: String,
    /// Data it was trained on.
    pub datasets: Vec<String>,
    /// Further tags.
    pub tags: Vec<String>,
    /// Scores.
    pub scores: Vec<CardScore>,
    /// How it was trained, as name and value.
    pub training: Vec<(String, String)>,
    /// How to use it: a shell command.
    pub usage: String,
    /// What it cannot do.
    pub limitations: Vec<String>,
}

/// One score on the card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CardScore {
    /// Data set.
    pub dataset: String,
    /// Split.
    pub split: String,
    /// Name of the metric.
    pub metric: String,
    /// The value as a fraction.
    pub value: f64,
}

impl ModelCard {
    /// The whole file.
    pub fn to_markdown(&self) -> String {
        let mut out = self.front_matter();
        push(&mut out, format_args!("\n# {}\n\n{}\n", one_line(&self.name), self.description));
        if !self.scores.is_empty() {
            out.push_str("\n## Scores\n\n| data | split | metric | value |\n|---|---|---|---|\n");
            for score in &self.scores {
                let cells = [&score.dataset, &score.split, &score.metric].map(|text| cell(text));
                push(
                    &mut out,
                    format_args!("| {} | {:.2} |\n", cells.join(" | "), 100.0 * score.value),
                );
            }
        }
        if !self.training.is_empty() {
            out.push_str("\n## Training\n\n| | |\n|---|---|\n");
            for (name, value) in &self.training {
                push(&mut out, format_args!("| {} | {} |\n", cell(name), cell(value)));
            }
        }
        if !self.usage.is_empty() {
            push(&mut out, format_args!("\n## Use\n\n```sh\n{}\n```\n", self.usage));
        }
        if !self.limitations.is_empty() {
            out.push_str("\n## Limitations\n\n");
            for limitation in &self.limitations {
                push(&mut out, format_args!("- {}\n", one_line(limitation)));
            }
        }
        out
    }

    fn front_matter(&self) -> String {
        let mut out = "---\n".to_owned();
        list(&mut out, "language", &self.languages);
        for (key, value) in [("license", &self.license), ("base_model", &self.base_model)] {
            if !value.is_empty() {
                push(&mut out, format_args!("{key}: {}\n", quoted(value)));
            }
        }
        list(&mut out, "datasets", &self.datasets);
        let own = ["relation-extraction", "document-level-relation-extraction"].map(str::to_owned);
        list(&mut out, "tags", &[own.as_slice(), self.tags.as_slice()].concat());
        out.push_str("---\n");
        out
    }
}

fn list(out: &mut String, key: &str, values: &[String]) {
    if !values.is_empty() {
        push(out, format_args!("{key}:\n"));
        for value in values {
            push(out, format_args!("- {}\n", quoted(value)));
        }
    }
}

/// A JSON string is a YAML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn cell(text: &str) -> String {
    one_line(text).replace('|', "\\|")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_card() {
        let card = ModelCard {
            name: "tiny\nmodel".into(),
            description: "A test.".into(),
            license: "apache-2.0".into(),
            datasets: vec!["say \"docred\": yes".into()],
            scores: vec![CardScore {
                dataset: "a|b".into(),
                split: "dev".into(),
                metric: "F1".into(),
                value: 0.5865,
            }],
            ..ModelCard::default()
        };
        let expected = "---\nlicense: \"apache-2.0\"\ndatasets:\n\
             - \"say \\\"docred\\\": yes\"\ntags:\n- \"relation-extraction\"\n\
             - \"document-level-relation-extraction\"\n---\n\n# tiny model\n\n\
             A test.\n\n## Scores\n\n\
             | data | split | metric | value |\n|---|---|---|---|\n| a\\|b | dev | F1 | 58.65 |\n";
        assert_eq!(card.to_markdown(), expected);
    }
}
