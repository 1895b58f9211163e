//! The Arrow schema of a shard: one row a document. `schemas/shard.json` shows it to people and is
//! checked against this code.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

/// The list element's name in Arrow and Parquet.
const ITEM: &str = "item";

/// The column of the title of a document.
pub(super) const TITLE: &str = "title";

/// The column of what a teacher says.
pub(super) const TAUGHT: &str = "taught";

/// The column of a teacher's logits.
pub(super) const TEACHER_LOGITS: &str = "teacher_logits";

/// Fields of one mention.
pub(super) fn mention_fields() -> Fields {
    Fields::from(vec![
        text("name"),
        number("sentence"),
        number("start"),
        number("end"),
        text("own_type").with_nullable(true),
    ])
}

/// Fields of one entity.
pub(super) fn entity_fields() -> Fields {
    Fields::from(vec![text("entity_type"), list("mentions", DataType::Struct(mention_fields()))])
}

/// Fields of one fact.
pub(super) fn fact_fields() -> Fields {
    Fields::from(vec![
        number("head"),
        number("tail"),
        number("relation"),
        list("evidence", DataType::UInt32),
    ])
}

/// Fields of one scored pair.
pub(super) fn pair_fields() -> Fields {
    Fields::from(vec![
        number("head"),
        number("tail"),
        Field::new("score", DataType::Float32, false),
    ])
}

/// Fields of one pair of a teacher.
pub(super) fn taught_fields() -> Fields {
    Fields::from(vec![
        number("head"),
        number("tail"),
        list("relations", DataType::Struct(taught_relation_fields())),
        list("evidence", DataType::UInt8),
        list("tokens", DataType::UInt16),
        list("weights", DataType::UInt16),
    ])
}

/// Fields of one relation of a teacher's pair.
pub(super) fn taught_relation_fields() -> Fields {
    Fields::from(vec![
        small("relation"),
        small("probability"),
        Field::new("predicted", DataType::Boolean, false),
        small("deviation"),
    ])
}

/// Fields of one candidate pair.
pub(super) fn candidate_fields() -> Fields {
    Fields::from(vec![
        number("head"),
        number("tail"),
        Field::new("excluded", DataType::Boolean, false),
    ])
}

/// The columns of a shard, in order; the types follow
/// [`TokenizedDocument`](crate::text::TokenizedDocument).
pub fn shard_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text(TITLE),
        list("words", DataType::Utf8),
        list("pieces", DataType::UInt32),
        list("word_starts", DataType::UInt32),
        list("sentence_starts", DataType::UInt32),
        list("entities", DataType::Struct(entity_fields())),
        list("facts", DataType::Struct(fact_fields())),
        Field::new("labelled", DataType::Boolean, false),
        list("candidates", DataType::Struct(candidate_fields())).with_nullable(true),
        list("kept", DataType::Struct(pair_fields())).with_nullable(true),
        list(TAUGHT, DataType::Struct(taught_fields())).with_nullable(true),
        list(TEACHER_LOGITS, DataType::UInt16).with_nullable(true),
    ]))
}

/// Fields of a mention with a type of its own.
pub(super) fn typed_mention_fields() -> Fields {
    Fields::from(vec![
        text("name"),
        number("sentence"),
        number("start"),
        number("end"),
        text("type"),
    ])
}

/// Fields of an entity with its identifier in a knowledge base.
pub(super) fn identified_entity_fields() -> Fields {
    Fields::from(vec![
        text("id").with_nullable(true),
        list("mentions", DataType::Struct(typed_mention_fields())),
    ])
}

/// Fields of a fact whose relation is named.
pub(super) fn named_fact_fields() -> Fields {
    Fields::from(vec![
        number("head"),
        number("tail"),
        text("relation"),
        list("evidence", DataType::UInt32),
    ])
}

/// The columns of a table of documents, in order; the types follow
/// [`Document`](crate::corpus::Document).
pub fn document_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("title"),
        list("sentences", DataType::List(item_field(DataType::Utf8))),
        list("entities", DataType::Struct(identified_entity_fields())),
        list("facts", DataType::Struct(named_fact_fields())).with_nullable(true),
        list("candidates", DataType::Struct(candidate_fields())).with_nullable(true),
    ]))
}

/// The columns of the fact index.
pub fn fact_schema() -> SchemaRef {
    let key = Field::new("key", DataType::UInt64, false);
    Arc::new(Schema::new(vec![
        key,
        number("row"),
        number("head"),
        number("tail"),
        number("relation"),
    ]))
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

fn number(name: &str) -> Field {
    Field::new(name, DataType::UInt32, false)
}

fn small(name: &str) -> Field {
    Field::new(name, DataType::UInt16, false)
}

fn list(name: &str, item: DataType) -> Field {
    Field::new(name, DataType::List(item_field(item)), false)
}

/// The element of a list.
pub(super) fn item_field(item: DataType) -> Arc<Field> {
    Arc::new(Field::new(ITEM, item, false))
}

/// The name of a type, without what is inside it.
fn kind(data_type: &DataType) -> String {
    match data_type {
        DataType::List(_) => "list".to_owned(),
        DataType::Struct(_) => "struct".to_owned(),
        DataType::Utf8 => "utf8".to_owned(),
        DataType::UInt8 => "u8".to_owned(),
        DataType::UInt16 => "u16".to_owned(),
        DataType::UInt32 => "u32".to_owned(),
        DataType::UInt64 => "u64".to_owned(),
        DataType::Float32 => "f32".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        other => other.to_string(),
    }
}

/// Checks that a batch has a column, with everything inside it, by names and types.
///
/// Errors: a fragment that names what is missing or of another type.
pub(super) fn check_column(batch: &RecordBatch, wanted: &Field) -> Result<(), String> {
    let name = wanted.name();
    let column = batch.column_by_name(name).ok_or_else(|| format!("no column `{name}`"))?;
    check_type(name, wanted.data_type(), column.data_type())
}

fn check_type(name: &str, wanted: &DataType, found: &DataType) -> Result<(), String> {
    match (wanted, found) {
        (DataType::List(wanted), DataType::List(found)) => {
            check_type(name, wanted.data_type(), found.data_type())
        }
        (DataType::Struct(wanted), DataType::Struct(found)) => {
            wanted.iter().try_for_each(|field| {
                let name = field.name();
                let (_, own) = found.find(name).ok_or_else(|| format!("no field `{name}`"))?;
                check_type(name, field.data_type(), own.data_type())
            })
        }
        (wanted, found) if wanted == found => Ok(()),
        _ => Err(format!("column `{name}` is not of type {}", kind(wanted))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The schemas as readable JSON, as `schemas/shard.json` holds them.
    fn schema_json() -> String {
        let shard = json!({
            "file": "train-00000-of-000NN.parquet",
            "row": "one document",
            "columns": columns(shard_schema().fields()),
        });
        let facts = json!({
            "file": "facts.parquet",
            "row": "one instance of a fact key, sorted by key",
            "columns": columns(fact_schema().fields()),
        });
        let documents = json!({
            "file": "what `convert --to parquet` writes",
            "row": "one document",
            "columns": columns(document_schema().fields()),
        });
        format!(
            "{:#}\n",
            json!({
                "format_version": crate::shards::FORMAT_VERSION, "shard": shard,
                "fact_index": facts, "documents": documents,
            })
        )
    }

    fn columns(fields: &Fields) -> Value {
        fields
            .iter()
            .map(|field| {
                let (kind, nullable) = (type_json(field.data_type()), field.is_nullable());
                json!({ "name": field.name(), "type": kind, "nullable": nullable })
            })
            .collect()
    }

    fn type_json(data_type: &DataType) -> Value {
        match data_type {
            DataType::List(item) => json!({ kind(data_type): type_json(item.data_type()) }),
            DataType::Struct(fields) => json!({ kind(data_type): columns(fields) }),
            plain => json!(kind(plain)),
        }
    }

    /// `DOCRE_WRITE_SCHEMAS=1 cargo test schema` rewrites the file after a deliberate change.
    #[test]
    fn the_schema_in_the_tree_is_the_one_in_the_code() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/shard.json");
        if std::env::var_os("DOCRE_WRITE_SCHEMAS").is_some() {
            fs_err::write(&path, schema_json()).unwrap();
        }
        assert_eq!(
            fs_err::read_to_string(&path).unwrap(),
            schema_json(),
            "run DOCRE_WRITE_SCHEMAS=1 cargo test shards::schema"
        );
    }
}
