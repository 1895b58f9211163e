//! The Arrow schema of a shard: one row a document. `schemas/shard.json` shows it to people and is
//! checked against this code.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

/// The list element's name in Arrow and Parquet.
const ITEM: &str = "item";

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
        text("title"),
        list("words", DataType::Utf8),
        list("pieces", DataType::UInt32),
        list("word_starts", DataType::UInt32),
        list("sentence_starts", DataType::UInt32),
        list("entities", DataType::Struct(entity_fields())),
        list("facts", DataType::Struct(fact_fields())),
        Field::new("labelled", DataType::Boolean, false),
        list("candidates", DataType::Struct(candidate_fields())).with_nullable(true),
        list("kept", DataType::Struct(pair_fields())).with_nullable(true),
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

fn list(name: &str, item: DataType) -> Field {
    Field::new(name, DataType::List(item_field(item)), false)
}

/// The element of a list.
pub(super) fn item_field(item: DataType) -> Arc<Field> {
    Arc::new(Field::new(ITEM, item, false))
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
                "format_version": crate::shards::FORMAT_VERSION,
                "shard": shard,
                "fact_index": facts,
                "documents": documents,
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
            DataType::List(item) => json!({ "list": type_json(item.data_type()) }),
            DataType::Struct(fields) => json!({ "struct": columns(fields) }),
            DataType::Utf8 => json!("utf8"),
            DataType::UInt32 => json!("u32"),
            DataType::UInt64 => json!("u64"),
            DataType::Float32 => json!("f32"),
            DataType::Boolean => json!("bool"),
            other => json!(other.to_string()),
        }
    }

    /// `UPDATE_SCHEMAS=1 cargo test shards::schema` rewrites the file after a deliberate change.
    #[test]
    fn the_schema_in_the_tree_is_the_one_in_the_code() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/shard.json");
        if std::env::var_os("UPDATE_SCHEMAS").is_some() {
            fs_err::write(&path, schema_json()).unwrap();
        }
        assert_eq!(
            fs_err::read_to_string(&path).unwrap(),
            schema_json(),
            "run UPDATE_SCHEMAS=1 cargo test shards::schema"
        );
    }
}
