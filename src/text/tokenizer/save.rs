//! Writing a tokeniser as a Hugging Face folder.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper};

use super::{Inner, TokenizerKind};
use crate::Result;

/// Writes the files of a Hugging Face tokeniser.
pub(super) fn write(inner: &Inner, folder: &Path) -> Result<()> {
    fs_err::create_dir_all(folder)?;
    fs_err::write(folder.join("tokenizer.json"), &inner.json)?;
    fs_err::write(folder.join("tokenizer_config.json"), format!("{:#}\n", config(inner)))?;
    fs_err::write(
        folder.join("special_tokens_map.json"),
        format!("{:#}\n", special_tokens(inner)),
    )?;
    if inner.kind == TokenizerKind::WordPiece {
        fs_err::write(folder.join("vocab.txt"), vocab_lines(inner))?;
    }
    Ok(())
}

/// `{"cls_token": "[CLS]", …}`.
fn special_tokens(inner: &Inner) -> Value {
    let name = |id: u32| inner.tokenizer.id_to_token(id);
    let special = &inner.special;
    let (unk, sep, pad, cls) =
        (name(special.unk), name(special.sep), name(special.pad), name(special.cls));
    let mut map = json!({ "unk_token": unk, "sep_token": sep, "pad_token": pad, "cls_token": cls });
    // A vocabulary may hold the mask of another family as an ordinary piece, as MPNet's does.
    let added = inner.tokenizer.get_added_tokens_decoder();
    let special = |mask: &&str| added.values().any(|piece| piece.special && piece.content == *mask);
    let known = |mask: &&str| inner.tokenizer.token_to_id(mask).is_some();
    let masks = ["[MASK]", "<mask>"];
    if let Some(mask) = masks.iter().find(|&m| special(m)).or(masks.iter().find(|&m| known(m))) {
        map["mask_token"] = json!(mask);
    }
    map
}

/// `tokenizer_config.json`: the class to open the folder with, and the settings that class would
/// otherwise guess.
fn config(inner: &Inner) -> Value {
    let mut config = special_tokens(inner);
    if let Some(PreTokenizerWrapper::ByteLevel(bytes)) = inner.tokenizer.get_pre_tokenizer() {
        // Otherwise transformers takes the blank away again.
        config["add_prefix_space"] = json!(bytes.add_prefix_space);
    }
    if let Some(bert) = as_bert(inner) {
        let mpnet = inner.tokenizer.id_to_token(inner.special.cls).as_deref() == Some("<s>");
        config["tokenizer_class"] = json!(if mpnet { "MPNetTokenizer" } else { "BertTokenizer" });
        config["do_lower_case"] = json!(bert.lowercase);
        config["strip_accents"] = json!(bert.strip_accents);
        config["tokenize_chinese_chars"] = json!(bert.handle_chinese_chars);
    } else {
        config["tokenizer_class"] = json!("PreTrainedTokenizerFast");
    }
    config
}

/// The normaliser of a tokeniser that BERT's class builds anew from its vocabulary.
fn as_bert(inner: &Inner) -> Option<&BertNormalizer> {
    match (inner.kind, inner.tokenizer.get_normalizer(), inner.tokenizer.get_pre_tokenizer()) {
        (
            TokenizerKind::WordPiece,
            Some(NormalizerWrapper::BertNormalizer(bert)),
            Some(PreTokenizerWrapper::BertPreTokenizer(_)),
        ) if bert.clean_text => Some(bert),
        _ => None,
    }
}

/// All pieces, one a line, so that the line is the number. A number without a piece (never seen in
/// practice) keeps its line.
fn vocab_lines(inner: &Inner) -> String {
    let mut text = String::new();
    for id in 0..inner.vocab_size as u32 {
        let piece = inner.tokenizer.id_to_token(id).unwrap_or_else(|| format!("[missing{id}]"));
        let _ = writeln!(text, "{piece}");
    }
    text
}
