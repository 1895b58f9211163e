//! The `README.md` of an exported checkpoint: YAML front matter and a short text. Not for: scores
//! of a run in full (`html`).

/// What the card says. Empty parts are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelCard {
    /// Name of the model.
    pub name: String,
    /// What it is, in a sentence or two.
    pub description: String,
    /// The encoder it started from.
    pub base_model: String,
    /// Further tags.
    pub tags: Vec<String>,
    /// Scores.
    pub scores: Vec<CardScore>,
    /// How it was trained, as name and value.
    pub training: Vec<(String, String)>,
    /// How to use it: a shell command.
    pub usage: String,
}

/// One score on the card.
#[derive(Clone, Debug, Default, PartialEq)]
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
        out += &format!("\n# {}\n\n{}\n", one_line(&self.name), self.description);
        if !self.scores.is_empty() {
            out += "\n## Scores\n\n| data | split | metric | value |\n|---|---|---|---|\n";
            for score in &self.scores {
                let cells = [&score.dataset, &score.split, &score.metric].map(|text| cell(text));
                out += &format!("| {} | {:.2} |\n", cells.join(" | "), 100.0 * score.value);
            }
        }
        if !self.training.is_empty() {
            out += "\n## Training\n\n| | |\n|---|---|\n";
            for (name, value) in &self.training {
                out += &format!("| {} | {} |\n", cell(name), cell(value));
            }
        }
        if !self.usage.is_empty() {
            out += &format!("\n## Use\n\n```sh\n{}\n```\n", self.usage);
        }
        out
    }

    fn front_matter(&self) -> String {
        let mut out = "---\n".to_owned();
        if !self.base_model.is_empty() {
            out += &format!("base_model: {}\n", quoted(&self.base_model));
        }
        out += "tags:\n";
        let own = ["relation-extraction", "document-level-relation-extraction"];
        for tag in own.into_iter().chain(self.tags.iter().map(String::as_str)) {
            out += &format!("- {}\n", quoted(tag));
        }
        out + "---\n"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_card() {
        let card = ModelCard {
            name: "tiny\nmodel".into(),
            description: "A test.".into(),
            base_model: "say \"docred\": yes".into(),
            scores: vec![CardScore {
                dataset: "a|b".into(),
                split: "dev".into(),
                metric: "F1".into(),
                value: 0.5865,
            }],
            ..ModelCard::default()
        };
        let expected = "---\nbase_model: \"say \\\"docred\\\": yes\"\ntags:\n\
             - \"relation-extraction\"\n\
             - \"document-level-relation-extraction\"\n---\n\n# tiny model\n\n\
             A test.\n\n## Scores\n\n\
             | data | split | metric | value |\n|---|---|---|---|\n| a\\|b | dev | F1 | 58.65 |\n";
        assert_eq!(card.to_markdown(), expected);
    }
}
