//! Tokenisers of the encoder families: models of sentencepiece, frames, names of special pieces.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;

/// A field of a message with bytes in it.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![number << 3 | 2, bytes.len() as u8 & 0x7f | 0x80];
    message.push((bytes.len() >> 7) as u8);
    message.extend_from_slice(bytes);
    message
}

fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
    let mut message = field(1, text.as_bytes());
    message.push(2 << 3 | 5);
    message.extend_from_slice(&score.to_le_bytes());
    message.extend_from_slice(&[3 << 3, kind]);
    field(1, &message)
}

/// A model file whose first pieces are special (name, kind).
fn model_file(special: &[(&str, u8)], unk_id: u8) -> Vec<u8> {
    let mut file = Vec::new();
    for &(name, kind) in special {
        file.extend(piece(name, 0.0, kind));
    }
    for (text, score) in [
        ("▁", -2.0),
        ("▁the", -3.0),
        ("▁café", -4.0),
        ("▁cafe", -4.0),
        ("s", -2.5),
        ("▁The", -5.0),
        ("▁1", -3.0),
        ("1,", -1.0),
        ("1", -3.0),
        (",", -3.0),
    ] {
        file.extend(piece(text, score, 1));
    }
    file.extend(piece("given", 0.0, 4));
    // trainer_spec: model_type 1, unk_id (field 40 takes two bytes of key).
    file.extend(field(2, &[3 << 3, 1, 0xc0, 0x02, unk_id]));
    // normalizer_spec without a character map.
    file.extend(field(3, &[]));
    file
}

const BERT_LIKE: [(&str, u8); 4] = [("[PAD]", 3), ("[CLS]", 3), ("[SEP]", 3), ("[UNK]", 2)];
const PLAIN: [(&str, u8); 3] = [("<unk>", 2), ("<s>", 3), ("</s>", 3)];
const ALBERT: [(&str, u8); 5] =
    [("<pad>", 3), ("<unk>", 2), ("[CLS]", 3), ("[SEP]", 3), ("[MASK]", 3)];
const XLNET: [(&str, u8); 7] = [
    ("<unk>", 2),
    ("<s>", 3),
    ("</s>", 3),
    ("<cls>", 3),
    ("<sep>", 3),
    ("<pad>", 3),
    ("<mask>", 3),
];

/// A folder with a model file and `tokenizer_config.json`.
fn folder(file: &str, model: &[u8], config: &Value) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    fs_err::write(temp.path().join(file), model).unwrap();
    fs_err::write(temp.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    temp
}

fn shown(tokenizer: &mut Tokenizer, words: &[&str]) -> Vec<String> {
    let ids: Vec<u32> =
        words.iter().flat_map(|word| tokenizer.tokenize_word(word).unwrap().to_vec()).collect();
    ids.into_iter().map(|id| tokenizer.token(id).unwrap()).collect()
}

fn names(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let names: Vec<String> = ids.iter().map(|&id| tokenizer.token(id).unwrap()).collect();
    names.join(" ")
}

#[test]
fn models_of_sentencepiece_are_read_as_their_family_does() {
    let words = ["The", "cafés", "11,", "ünknown", "given"];
    let class = |name: &str| json!({ "tokenizer_class": name });
    for (file, special, unk_id, config, expected, first, frame) in [
        // No class: only DeBERTa's model is called so.
        (
            "spm.model",
            &BERT_LIKE[..],
            3,
            json!({}),
            "▁The ▁café s ▁1 1, ▁ [UNK] s ▁ [UNK] given",
            0,
            ("[CLS]", "[SEP]"),
        ),
        (
            "sentencepiece.bpe.model",
            &PLAIN[..],
            0,
            class("XLMRobertaTokenizerFast"),
            "▁The ▁café s ▁1 1, ▁ <unk> given",
            1,
            ("<s>", "</s>"),
        ),
        (
            "spiece.model",
            &ALBERT[..],
            1,
            class("AlbertTokenizer"),
            "▁the ▁cafe s ▁1 1 , ▁ <unk> ▁ given",
            0,
            ("[CLS]", "[SEP]"),
        ),
        (
            "spiece.model",
            &XLNET[..],
            0,
            class("XLNetTokenizer"),
            "▁The ▁cafe s ▁1 1 , ▁ <unk> ▁ given",
            0,
            ("", "<sep> <cls>"),
        ),
    ] {
        let temp = folder(file, &model_file(special, unk_id), &config);
        let mut tokenizer = Tokenizer::load(temp.path(), None).unwrap();
        assert_eq!(tokenizer.kind(), TokenizerKind::Unigram);
        let found = shown(&mut tokenizer, &["The", "cafés", "11,"]).join(" ");
        assert!(expected.starts_with(&found), "{file} {config}: {found}");
        assert_eq!(shown(&mut tokenizer, &["given"]).last().unwrap(), "given", "{words:?}");
        let unknown = tokenizer.tokenize_word("ÿþ").unwrap().to_vec();
        let special = tokenizer.special().clone();
        assert_eq!(unknown.last(), Some(&special.unk), "{file} {config}: {unknown:?}");
        assert_eq!(tokenizer.id("▁"), Some(tokenizer.id("s").unwrap() - 4));
        assert_eq!(
            (names(&tokenizer, &special.prefix), names(&tokenizer, &special.suffix)),
            (frame.0.to_owned(), frame.1.to_owned()),
            "{file} {config}"
        );
        assert_eq!(special.window_end, special.suffix);
        let plain = tokenizer.id("▁").unwrap() as usize;
        let count = [BERT_LIKE.len(), PLAIN.len(), ALBERT.len(), XLNET.len()];
        assert!(count.contains(&(plain - first)), "{file}: {plain}");
        let saved = temp.path().join("saved");
        tokenizer.save(&saved).unwrap();
        let mut again = Tokenizer::load(&saved, None).unwrap();
        assert_eq!((again.identity(), again.special()), (tokenizer.identity(), &special));
        assert_eq!(shown(&mut again, &words), shown(&mut tokenizer, &words));
    }
}

#[test]
fn the_hidden_piece_of_deberta_follows_the_vocabulary_and_markers_follow_it() {
    let temp = folder("spm.model", &model_file(&BERT_LIKE, 3), &json!({ "do_lower_case": false }));
    let tokenizer = Tokenizer::load(temp.path(), None).unwrap();
    let pieces = BERT_LIKE.len() as u32 + 11;
    assert_eq!(tokenizer.id("[MASK]"), Some(pieces));
    assert_eq!(tokenizer.special().blank(), pieces + 1);
    let numbers = format!("numbers {} to {}", pieces + 1, pieces + 401);
    assert!(tokenizer.note().unwrap().ends_with(&numbers));
    assert_eq!(tokenizer.warnings(), [""; 0]);
}

#[test]
fn a_unigram_model_without_an_unknown_piece_is_refused() {
    let temp = folder("spm.model", &model_file(&BERT_LIKE, 3), &json!({}));
    Tokenizer::load(temp.path(), None).unwrap().save(&temp.path().join("saved")).unwrap();
    let path = temp.path().join("saved/tokenizer.json");
    let text = fs_err::read_to_string(&path).unwrap();
    fs_err::write(&path, text.replace("\"unk_id\":3", "\"unk_id\":null")).unwrap();
    let error = Tokenizer::load(&path, None).unwrap_err();
    assert!(error.to_string().contains("names no unknown piece"), "{error}");
}

#[test]
fn case_of_a_model_of_sentencepiece_is_a_setting() {
    for (config, asked, expected) in [
        (json!({}), None, "▁The"),
        (json!({ "do_lower_case": true }), None, "▁the"),
        (json!({ "do_lower_case": true }), Some(false), "▁The"),
        (json!({}), Some(true), "▁the"),
    ] {
        let temp = folder("spm.model", &model_file(&BERT_LIKE, 3), &config);
        let mut tokenizer = Tokenizer::load(temp.path(), asked).unwrap();
        assert_eq!(shown(&mut tokenizer, &["The"]), [expected], "{config} {asked:?}");
    }
}

#[test]
fn a_damaged_model_of_sentencepiece_is_refused_or_read_without_a_panic() {
    let whole = model_file(&BERT_LIKE, 3);
    for at in 0..whole.len() {
        let temp = folder("spm.model", &whole[..at], &json!({}));
        let cut = Tokenizer::load(temp.path(), None);
        assert_eq!(cut.unwrap_err().exit_code(), 65, "cut at {at}");
        let mut changed = whole.clone();
        changed[at] ^= 0x55;
        fs_err::write(temp.path().join("spm.model"), changed).unwrap();
        if let Ok(mut tokenizer) = Tokenizer::load(temp.path(), None) {
            tokenizer.tokenize_word("cafés 1,").unwrap();
        }
    }
    for (file, config, text) in [
        ("spiece.model", json!({}), "no file beside it says"),
        ("spm.model", json!({ "tokenizer_class": "BertTokenizer" }), "without a model of"),
        ("spm.model", json!({ "tokenizer_class": "XLMRobertaTokenizer" }), "begins with"),
    ] {
        let temp = folder(file, &whole, &config);
        let error = Tokenizer::load(temp.path(), None).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains(text) && error.hint().is_some(), "{error}");
    }
}

/// One key, `ab`, stands for `x`: unit 1 ^ 'a', from there 'b', and the value beside.
fn charsmap() -> Vec<u8> {
    let mut units = vec![0_u32; 1024];
    let offset = |to: usize| (to as u32) << 10;
    units[0] = offset(256);
    let a = 256 ^ usize::from(b'a');
    units[a] = offset(a ^ 512) | u32::from(b'a');
    let b = 512 ^ usize::from(b'b');
    units[b] = offset(b ^ 768) | u32::from(b'b') | 1 << 8;
    units[768] = 1 << 31;
    let mut map = (units.len() as u32 * 4).to_le_bytes().to_vec();
    map.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    map.extend_from_slice(b"x\0");
    map
}

#[test]
fn character_maps_are_checked_before_the_library_walks_them() {
    use tokenizers::normalizers::Precompiled;

    let map = charsmap();
    charsmap::check(&map).unwrap();
    let walk = |map: &[u8]| Precompiled::from(map).unwrap().normalize_string("abc ab a zz é");
    assert_eq!(walk(&map), "abc ab a zz é", "a grapheme is one letter");
    assert_eq!(Precompiled::from(&map).unwrap().transform("abc"), Some("x"));
    let json = serde_json::to_value(Precompiled::from(&map).unwrap()).unwrap();
    charsmap::check_json(&json!({ "normalizers": [json] })).unwrap();
    for at in 0..map.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = map.clone();
            changed[at] ^= flip;
            if charsmap::check(&changed).is_ok() {
                walk(&changed);
            }
        }
    }
    for (text, problem) in [("AAA", "without a length"), ("!", "not base64"), ("BAAAAA", "trie")] {
        let json = json!({ "type": "Precompiled", "precompiled_charsmap": text });
        let error = charsmap::check_json(&json).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn named_special_pieces_count_and_missing_ones_are_appended() {
    let temp = tempfile::tempdir().unwrap();
    fs_err::write(temp.path().join("vocab.txt"), "<p>\n[UNK]\n<start>\n<end>\na\n").unwrap();
    let config = json!({
        "cls_token": "<start>", "sep_token": { "content": "<end>" }, "pad_token": "<p>",
        "mask_token": "<hidden>", "do_lower_case": true,
    });
    fs_err::write(temp.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::load(temp.path(), None).unwrap();
    let special = tokenizer.special();
    assert_eq!((special.cls, special.sep, special.pad, special.unk), (2, 3, 0, 1));
    assert_eq!((special.prefix.as_slice(), special.suffix.as_slice()), (&[2][..], &[3][..]));
    assert_eq!((tokenizer.id("<hidden>"), special.blank()), (Some(5), 6));
    assert_eq!(tokenizer.warnings(), [""; 0]);
    let map = temp.path().join("special_tokens_map.json");
    fs_err::write(map, json!({ "pad_token": "<other>" }).to_string()).unwrap();
    let tokenizer = Tokenizer::load(temp.path(), None).unwrap();
    assert!(tokenizer.warnings()[0].contains("`<other>` is not in the vocabulary"));
}

#[test]
fn mpnet_has_roberta_s_frame_over_bert_s_vocabulary() {
    let temp = tempfile::tempdir().unwrap();
    let pieces = "<s>\n<pad>\n</s>\n<unk>\n[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n<mask>\n";
    fs_err::write(temp.path().join("vocab.txt"), pieces).unwrap();
    fs_err::write(temp.path().join("config.json"), r#"{"model_type": "mpnet"}"#).unwrap();
    let mut tokenizer = Tokenizer::load(temp.path(), None).unwrap();
    let special = tokenizer.special().clone();
    assert_eq!((special.cls, special.sep, special.pad, special.unk), (0, 2, 1, 5));
    assert_eq!((special.prefix.as_slice(), special.window_end.as_slice()), (&[0][..], &[2][..]));
    assert_eq!(tokenizer.tokenize_word("The").unwrap(), [8]);
    assert_eq!(tokenizer.tokenize_word("zzz").unwrap(), [5]);
    let saved = temp.path().join("saved");
    tokenizer.save(&saved).unwrap();
    let again = Tokenizer::load(&saved, None).unwrap();
    assert_eq!((again.identity(), again.special()), (tokenizer.identity(), &special));
}

/// The folder of a case, and what its words become.
struct Family {
    folder: PathBuf,
    case: Value,
    words: Vec<String>,
}

impl Family {
    fn all() -> Vec<Self> {
        let folder = crate::reference_data().join("parity-encoders");
        let entries = crate::base::entries(&folder).unwrap().into_iter();
        let read = |path: PathBuf| -> Value {
            serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
        };
        let found: Vec<Self> = entries
            .filter(|(name, _)| name.starts_with("encoder-"))
            .map(|(_, folder)| {
                let words = read(folder.join("words.json"))["words"].clone();
                let case = read(folder.join("case.json"));
                Self { words: serde_json::from_value(words).unwrap(), case, folder }
            })
            .collect();
        assert!(!found.is_empty());
        found
    }

    fn inputs(&self, name: &str) -> Vec<i64> {
        let bytes = fs_err::read(self.folder.join("inputs.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), safetensors::Dtype::I64);
        tensor.data().as_chunks().0.iter().map(|&id| i64::from_le_bytes(id)).collect()
    }

    /// A copy of the folder with these files and `config.json`.
    fn with(&self, files: &[&str]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for file in files.iter().chain(&["config.json"]) {
            fs_err::copy(self.folder.join("model").join(file), temp.path().join(file)).unwrap();
        }
        temp
    }

    fn check_words(&self, folder: &Path, suffix: &str) {
        let mut tokenizer = Tokenizer::load(folder, None).unwrap();
        let pieces = self.inputs(&format!("word_pieces{suffix}"));
        let offsets = self.inputs(&format!("word_offsets{suffix}"));
        for (word, place) in self.words.iter().zip(offsets.windows(2)) {
            let expected = &pieces[place[0] as usize..place[1] as usize];
            let ours: Vec<i64> =
                tokenizer.tokenize_word(word).unwrap().iter().map(|&id| i64::from(id)).collect();
            let name = self.folder.file_name().unwrap();
            assert_eq!(ours, expected, "{name:?} {word:?} from {}", folder.display());
        }
        for warning in tokenizer.warnings() {
            assert!(warning.contains("come twice"), "{warning}");
        }
    }
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn words_of_every_family_have_the_pieces_of_the_reference() {
    for family in Family::all() {
        let model = family.folder.join("model");
        family.check_words(&model, "");
        let temp = tempfile::tempdir().unwrap();
        let tokenizer = Tokenizer::load(&model, None).unwrap();
        tokenizer.save(temp.path()).unwrap();
        family.check_words(temp.path(), "");
        let again = Tokenizer::load(temp.path(), None).unwrap();
        assert_eq!(again.identity(), tokenizer.identity(), "{}", model.display());
        for variant in family.case["tokenizer"]["variants"].as_array().unwrap() {
            let files = variant.as_str().unwrap().split('+');
            let files: Vec<&str> = files
                .map(|part| part.split_whitespace().next().unwrap().trim_end_matches(','))
                .collect();
            family.check_words(family.with(&files).path(), "");
        }
        if family.case["model_type"] == "modernbert" {
            let temp = family.with(&["tokenizer.json"]);
            let config = json!({ "add_prefix_space": false }).to_string();
            fs_err::write(temp.path().join("tokenizer_config.json"), config).unwrap();
            family.check_words(temp.path(), "_no_space");
        }
    }
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn sequences_of_every_family_are_framed_as_in_the_reference() {
    for family in Family::all() {
        let mut tokenizer = Tokenizer::load(&family.folder.join("model"), None).unwrap();
        let special = tokenizer.special().clone();
        for (what, id) in
            [("cls", special.cls), ("sep", special.sep), ("pad", special.pad), ("unk", special.unk)]
        {
            let expected = &family.case["tokenizer"]["special_tokens"][what][1];
            assert_eq!(*expected, id, "{what} of {}", family.folder.display());
        }
        let words = fs_err::read(family.folder.join("words.json")).unwrap();
        let words: Value = serde_json::from_slice(&words).unwrap();
        let mut ids: Vec<i64> = Vec::new();
        let mut offsets = vec![0];
        for sequence in words["sequences"].as_array().unwrap() {
            let mut framed = special.prefix.clone();
            for word in sequence.as_array().unwrap() {
                framed.extend(tokenizer.tokenize_word(word.as_str().unwrap()).unwrap());
            }
            framed.extend(&special.suffix);
            ids.extend(framed.into_iter().map(i64::from));
            offsets.push(ids.len() as i64);
        }
        assert_eq!(offsets, family.inputs("offsets"), "{}", family.folder.display());
        assert_eq!(ids, family.inputs("input_ids"), "{}", family.folder.display());
    }
}

#[test]
fn the_length_that_a_folder_states_is_read_and_huge_numbers_state_none() {
    let folder = tempfile::tempdir().unwrap();
    let stated = |config: &str| {
        fs_err::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        Tokenizer::stated_length(folder.path())
    };
    for (config, expected) in [
        (r#"{"model_max_length": 128}"#, Some(128)),
        (r#"{"model_max_length": 512.0}"#, Some(512)),
        (r#"{"model_max_length": 1000000000000000019884624838656}"#, None),
        (r#"{"model_max_length": 9223372036854775807}"#, None),
        (r#"{"model_max_length": 1e30}"#, None),
        (r#"{"model_max_length": null}"#, None),
        (r#"{"model_max_length": 0}"#, None),
        (r#"{"do_lower_case": true}"#, None),
    ] {
        assert_eq!(stated(config).unwrap(), expected, "{config}");
    }
    let error = stated(r#"{"model_max_length": "long"}"#).unwrap_err();
    assert!(error.to_string().contains("model_max_length") && error.hint().is_some(), "{error}");
    let nowhere = tempfile::tempdir().unwrap();
    assert_eq!(Tokenizer::stated_length(nowhere.path()).unwrap(), None);
}
