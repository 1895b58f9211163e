//! The `README.md` of an exported checkpoint: YAML front matter as the Hugging Face Hub reads it,
//! and sections of text. Not for: scores of a run in full (`html`), or where the values come from
//! (`pipeline::export`).

/// What the card says. Empty parts are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelCard {
    /// Name of the model.
    pub name: String,
    /// What it is, in a sentence or two.
    pub description: String,
    /// Identifier of the licence.
    pub license: String,
    /// Codes of the languages of its documents.
    pub languages: Vec<String>,
    /// Names of data sets on the Hub.
    pub datasets: Vec<String>,
    /// The repository of the Hub that it started from.
    pub base_model: Option<String>,
    /// The Hub's task, where it has one for the model.
    pub pipeline_tag: Option<&'static str>,
    /// Tags.
    pub tags: Vec<String>,
    /// Scores, those of one split together.
    pub scores: Vec<CardScore>,
    /// Further sections, as title and Markdown.
    pub sections: Vec<(String, String)>,
}

/// One score on the card.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CardScore {
    /// Data set: its name, and its identifier on the Hub or `custom`.
    pub dataset: (String, String),
    /// Split.
    pub split: String,
    /// The metric: its name, and its identifier on the Hub.
    pub metric: (String, String),
    /// The value, in per cent.
    pub value: f64,
}

/// The program by which the model is used.
const LIBRARY: &str = "docre-pretrain";

impl ModelCard {
    /// The whole file.
    pub fn to_markdown(&self) -> String {
        let mut out = self.front_matter();
        out += &format!("\n# {}\n\n{}\n", one_line(&self.name), self.description);
        if !self.scores.is_empty() {
            let row = |score: &CardScore| {
                let value = format!("{:.2}", score.value);
                vec![score.dataset.0.clone(), score.split.clone(), score.metric.0.clone(), value]
            };
            let rows = self.scores.iter().map(row).collect::<Vec<_>>();
            out += &section("Scores", &markdown_table(&["data", "split", "metric", "%"], &rows));
        }
        self.sections.iter().for_each(|(title, text)| out += &section(title, text));
        out
    }

    fn front_matter(&self) -> String {
        let mut out = format!("---\nlibrary_name: {}\n", quoted(LIBRARY));
        let single = [
            ("license", Some(self.license.as_str()).filter(|license| !license.is_empty())),
            ("base_model", self.base_model.as_deref()),
            ("pipeline_tag", self.pipeline_tag),
        ];
        for (key, value) in single {
            out += &value.map_or_else(String::new, |value| format!("{key}: {}\n", quoted(value)));
        }
        let lists =
            [("language", &self.languages), ("datasets", &self.datasets), ("tags", &self.tags)];
        for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
            out += &format!("{key}:\n");
            list.iter().for_each(|item| out += &format!("- {}\n", quoted(item)));
        }
        out + &self.model_index() + "---\n"
    }

    /// The scores in the Hub's structure, an entry for each data set and split.
    fn model_index(&self) -> String {
        if self.scores.is_empty() {
            return String::new();
        }
        let mut out = format!("model-index:\n- name: {}\n  results:\n", quoted(&self.name));
        let same = |a: &CardScore, b: &CardScore| a.dataset == b.dataset && a.split == b.split;
        for group in self.scores.chunk_by(same) {
            let (name, kind) = &group[0].dataset;
            let (name, kind, split) = (quoted(name), quoted(kind), quoted(&group[0].split));
            out += "  - task:\n      type: \"relation-extraction\"\n      \
                 name: \"Document-level relation extraction\"\n";
            out += &format!(
                "    dataset:\n      name: {name}\n      type: {kind}\n      split: {split}\n"
            );
            out += "    metrics:\n";
            for score in group {
                let (name, kind) = (quoted(&score.metric.0), quoted(&score.metric.1));
                let value = score.value;
                out +=
                    &format!("    - name: {name}\n      type: {kind}\n      value: {value:.2}\n");
            }
        }
        out
    }
}

fn section(title: &str, text: &str) -> String {
    format!("\n## {title}\n\n{}\n", text.trim_end())
}

/// A table; one without rows is empty.
pub fn markdown_table(head: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut out = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|text| cell(text)).collect();
        out += &format!("| {} |\n", cells.join(" | "));
    }
    out
}

/// A JSON string is a YAML string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(one_line(text)).to_string()
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
        let score = |split: &str, metric: &str, value| CardScore {
            dataset: ("a|b".into(), "org/a".into()),
            split: split.into(),
            metric: (metric.into(), metric.to_lowercase()),
            value,
        };
        let card = ModelCard {
            name: "tiny\nmodel".into(),
            description: "A test.".into(),
            license: "mit".into(),
            languages: vec!["en".into()],
            base_model: Some("say \"docred\": yes".into()),
            tags: vec!["relation-extraction".into()],
            scores: vec![score("dev", "F1", 58.651), score("dev", "Recall", 50.0)],
            sections: vec![("Use".into(), "So.\n".into())],
            ..ModelCard::default()
        };
        let expected = r#"---
library_name: "docre-pretrain"
license: "mit"
base_model: "say \"docred\": yes"
language:
- "en"
tags:
- "relation-extraction"
model-index:
- name: "tiny model"
  results:
  - task:
      type: "relation-extraction"
      name: "Document-level relation extraction"
    dataset:
      name: "a|b"
      type: "org/a"
      split: "dev"
    metrics:
    - name: "F1"
      type: "f1"
      value: 58.65
    - name: "Recall"
      type: "recall"
      value: 50.00
---

# tiny model

A test.

## Scores

| data | split | metric | % |
|---|---|---|---|
| a\|b | dev | F1 | 58.65 |
| a\|b | dev | Recall | 50.00 |

## Use

So.
"#;
        assert_eq!(card.to_markdown(), expected);
    }
}
