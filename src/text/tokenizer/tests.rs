use std::path::PathBuf;

use super::*;

/// A folder with a small BERT vocabulary; one whose name says `-cased` has a piece with a capital.
fn bert_folder(parent: &Path, name: &str) -> PathBuf {
    let folder = parent.join(name);
    fs_err::create_dir_all(&folder).unwrap();
    let capital = if name.contains("-cased") { "The" } else { "when" };
    let pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[unused0]",
        "the",
        "cafe",
        "un",
        "##aff",
        "##able",
        "[",
        "]",
        "sep",
        "中",
        "国",
        capital,
    ];
    fs_err::write(folder.join("vocab.txt"), pieces.join("\n") + "\n").unwrap();
    folder
}

fn pieces(tokenizer: &mut Tokenizer, word: &str) -> Vec<String> {
    let ids = tokenizer.tokenize_word(word).unwrap().to_vec();
    ids.into_iter().map(|id| tokenizer.token(id).unwrap()).collect()
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn bert_words_become_pieces() {
    let temp = temp();
    let mut tokenizer = Tokenizer::load(&bert_folder(temp.path(), "bert-uncased"), None).unwrap();
    assert_eq!(pieces(&mut tokenizer, "Unaffable"), ["un", "##aff", "##able"]);
    assert_eq!(pieces(&mut tokenizer, "CAFÉ"), ["cafe"]);
    assert_eq!(pieces(&mut tokenizer, "中国"), ["中", "国"]);
    assert_eq!(pieces(&mut tokenizer, "xyz"), ["[UNK]"]);
    assert_eq!(pieces(&mut tokenizer, &"the".repeat(34)), ["[UNK]"], "102 characters are too many");
    for empty in ["\u{a0}", "", " ", "\u{200b}\u{a0}"] {
        assert_eq!(pieces(&mut tokenizer, empty), [""; 0], "{empty:?}");
    }
    assert_eq!(pieces(&mut tokenizer, "Unaffable"), ["un", "##aff", "##able"], "from the cache");
}

#[test]
fn special_strings_in_the_text_are_plain_text() {
    let temp = temp();
    let folder = bert_folder(temp.path(), "uncased");
    let mut tokenizer = Tokenizer::load(&folder, None).unwrap();
    assert_eq!(pieces(&mut tokenizer, "[SEP]"), ["[", "sep", "]"]);
    assert_eq!(pieces(&mut tokenizer, "[unused7]"), ["[", "[UNK]", "]"], "an added piece");
    tokenizer.save(&temp.path().join("saved")).unwrap();
    let mut again = Tokenizer::load(&temp.path().join("saved"), None).unwrap();
    assert_eq!(pieces(&mut again, "[SEP]"), ["[", "sep", "]"]);
}

#[test]
fn the_caller_the_configuration_and_the_vocabulary_decide_about_case() {
    let temp = temp();
    let loads = |folder: &Path, choice| {
        let mut tokenizer = Tokenizer::load(folder, choice).unwrap();
        (pieces(&mut tokenizer, "The").join(" "), tokenizer.warnings().len())
    };
    let (kept, folded) = (|count| ("The".into(), count), |count| ("the".into(), count));
    let cased = bert_folder(temp.path(), "bert-cased");
    let uncased = bert_folder(temp.path(), "bert-uncased");
    assert_eq!((loads(&cased, None), loads(&uncased, None)), (kept(1), folded(0)));
    assert_eq!(loads(&cased, Some(true)), folded(1), "folding makes a piece in 17 unreachable");
    assert_eq!(loads(&uncased, Some(false)), ("[UNK]".into(), 0));
    assert_eq!(loads(&cased.join("vocab.txt"), None), kept(1), "the file itself");
    for (config, expected) in [("false", kept(0)), ("true", folded(1))] {
        let config = format!(r#"{{"do_lower_case": {config}}}"#);
        fs_err::write(cased.join("tokenizer_config.json"), config).unwrap();
        assert_eq!(loads(&cased, None), expected);
    }
    fs_err::remove_file(cased.join("tokenizer_config.json")).unwrap();
    let saved = temp.path().join("saved");
    Tokenizer::load(&cased, None).unwrap().save(&saved).unwrap();
    assert_eq!((loads(&saved, None), loads(&saved, Some(true))), (kept(0), folded(1)));
}

/// `make test-interop` compares with transformers itself, over many more settings.
#[test]
fn settings_beside_a_vocabulary_count_as_in_transformers() {
    let temp = temp();
    let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\naño\nano\nla\n東京\n東\n京\nun\n##i\nLa\n";
    let folder = temp.path().join("bert");
    fs_err::create_dir(&folder).unwrap();
    fs_err::write(folder.join("vocab.txt"), vocabulary).unwrap();
    let saved = temp.path().join("fast");
    let found = |folder: &Path, settings: &str, words: [&str; 3]| {
        fs_err::write(folder.join("tokenizer_config.json"), settings).unwrap();
        let mut tokenizer = Tokenizer::load(folder, None).unwrap();
        words.map(|word| pieces(&mut tokenizer, word).join(" ")).join(", ")
    };
    let words = ["año", "東京", "La"];
    for (settings, expected) in [
        (r#"{"do_lower_case": true}"#, "ano, 東 京, la"),
        (r#"{"do_lower_case": true, "strip_accents": false}"#, "año, 東 京, la"),
        (r#"{"do_lower_case": false, "strip_accents": true}"#, "ano, 東 京, La"),
        (r#"{"do_lower_case": true, "tokenize_chinese_chars": false}"#, "ano, 東京, la"),
        (r#"{"do_lower_case": false, "strip_accents": null}"#, "año, 東 京, La"),
        (r#"{"do_lower_case": false, "unk_token": {"content": "[PAD]"}}"#, "año, 東 京, La"),
    ] {
        assert_eq!(found(&folder, settings, words), expected, "{settings}");
        // A `tokenizer.json` beside says nothing about these settings.
        let bert = r#"{"do_lower_case": true}"#;
        fs_err::write(folder.join("tokenizer_config.json"), bert).unwrap();
        Tokenizer::load(&folder, None).unwrap().save(&saved).unwrap();
        let settings = settings.replacen('{', r#"{"tokenizer_class": "BertTokenizerFast", "#, 1);
        assert_eq!(found(&saved, &settings, words), expected, "{settings} with tokenizer.json");
    }
    let generic = r#"{"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": false}"#;
    assert_eq!(found(&saved, generic, words), "ano, 東 京, la", "as the file stands");
    let added = r#"{"do_lower_case": false, "added_tokens_decoder":
        {"13": {"content": "uni", "special": false}, "14": {"content": "<x>", "special": true}}}"#;
    assert_eq!(found(&folder, added, ["uni", "auni", "<x>"]), "uni, [UNK] uni, [UNK] [UNK] [UNK]");
    let unknown = r#"{"do_lower_case": false, "unk_token": "[PAD]"}"#;
    assert_eq!(found(&folder, unknown, ["xyz", "uni", "x"]), "[PAD], un ##i, [PAD]");
}

#[test]
fn a_blank_before_each_word_is_a_setting_of_byte_pairs() {
    let temp = temp();
    let vocab = r#"{"<s>":0,"<pad>":1,"</s>":2,"<unk>":3,"a":4,"Ġ":5,"Ġa":6}"#;
    fs_err::write(temp.path().join("vocab.json"), vocab).unwrap();
    fs_err::write(temp.path().join("merges.txt"), "#version: 0.2\nĠ a\n").unwrap();
    let saved = temp.path().join("saved");
    for (prefix, expected) in [("true", [6]), ("false", [4])] {
        let settings = format!(r#"{{"add_prefix_space": {prefix}}}"#);
        fs_err::write(temp.path().join("tokenizer_config.json"), settings).unwrap();
        let mut tokenizer = Tokenizer::load(temp.path(), None).unwrap();
        assert_eq!(tokenizer.tokenize_word("a").unwrap(), expected, "{prefix}");
        tokenizer.save(&saved).unwrap();
        let mut again = Tokenizer::load(&saved, None).unwrap();
        assert_eq!(again.tokenize_word("a").unwrap(), expected, "{prefix}, saved");
    }
}

#[test]
fn of_a_piece_that_comes_twice_the_later_line_counts() {
    let temp = temp();
    let path = temp.path().join("vocab.txt");
    fs_err::write(&path, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n$\na\n$\nb\n").unwrap();
    let tokenizer = Tokenizer::load(&path, None).unwrap();
    assert_eq!(
        (tokenizer.id("$"), tokenizer.id("b"), tokenizer.id("a")),
        (Some(6), Some(7), Some(5))
    );
    assert!(tokenizer.warnings()[0].contains("1 pieces come twice, such as `$`"));
    let saved = temp.path().join("saved");
    tokenizer.save(&saved).unwrap();
    let again = Tokenizer::load(&saved, None).unwrap();
    assert_eq!(again.identity(), tokenizer.identity());
}

#[test]
fn missing_unused_pieces_are_appended_and_saved() {
    let temp = temp();
    let tokenizer = Tokenizer::load(&bert_folder(temp.path(), "uncased"), None).unwrap();
    let special = tokenizer.special();
    assert_eq!(
        (special.pad, special.unk, special.cls, special.sep, special.blank()),
        (0, 1, 2, 3, 5)
    );
    assert_eq!(tokenizer.vocab_size(), 17 + 400);
    assert_eq!((tokenizer.id("[unused1]"), special.masked_mention()), (Some(17), 17 + 199));
    let saved = temp.path().join("saved");
    tokenizer.save(&saved).unwrap();
    let again = Tokenizer::load(&saved, None).unwrap();
    assert_eq!((again.identity(), again.special()), (tokenizer.identity(), special));
    let from_vocab = Tokenizer::load(&saved.join("vocab.txt"), Some(true)).unwrap();
    assert_eq!(
        (from_vocab.vocab_size(), from_vocab.special()),
        (tokenizer.vocab_size(), special),
        "vocab.txt holds them too"
    );
    let config: serde_json::Value =
        serde_json::from_slice(&fs_err::read(saved.join("tokenizer_config.json")).unwrap())
            .unwrap();
    assert_eq!(
        (&config["tokenizer_class"], &config["do_lower_case"]),
        (&"BertTokenizer".into(), &true.into())
    );
}

#[test]
fn markers_skip_the_masked_mention_and_wrap_around() {
    let special = SpecialPieces { unused: (0..401).collect(), ..SpecialPieces::default() };
    let markers = |entity| (special.start_marker(entity), special.end_marker(entity));
    assert_eq!((special.blank(), special.masked_mention()), (0, 200));
    assert_eq!(
        [markers(0), markers(1), markers(41), markers(98)],
        [(1, 2), (3, 4), (83, 84), (197, 198)]
    );
    assert_eq!([markers(99), markers(100), markers(198)], [(199, 201), (202, 203), (398, 399)]);
    assert_eq!((special.num_marked(), markers(199)), (199, (1, 2)));
    let all: std::collections::BTreeSet<u32> =
        (0..199).flat_map(|entity| [markers(entity).0, markers(entity).1]).collect();
    assert_eq!(all.len(), 398, "no marker is shared");
    assert!(!all.contains(&0) && !all.contains(&200));
}

#[test]
fn byte_pairs_are_roberta_s() {
    // Bytes as printable letters; "a b" merges to "ab", and a word has no blank before it.
    let temp = temp();
    let vocab =
        r#"{"<s>":0,"<pad>":1,"</s>":2,"<unk>":3,"a":4,"b":5,"ab":6,"*":7,"Ġ":8,"Ã":9,"¼":10}"#;
    fs_err::write(temp.path().join("vocab.json"), vocab).unwrap();
    fs_err::write(temp.path().join("merges.txt"), "#version: 0.2\na b\n").unwrap();
    let mut tokenizer = Tokenizer::load(temp.path(), None).unwrap();
    assert_eq!(tokenizer.kind(), TokenizerKind::BytePair);
    assert_eq!(tokenizer.tokenize_word("aba").unwrap(), [6, 4]);
    assert_eq!(tokenizer.tokenize_word("ü").unwrap(), [9, 10]);
    let special = tokenizer.special().clone();
    assert_eq!((special.cls, special.pad, special.sep, special.unk, special.star), (0, 1, 2, 3, 7));
    assert_eq!((special.window_end.clone(), special.unused[0]), (vec![2, 2], 11));
    let saved = temp.path().join("saved");
    tokenizer.save(&saved).unwrap();
    let mut again = Tokenizer::load(&saved, None).unwrap();
    assert_eq!((again.identity(), again.special()), (tokenizer.identity(), &special));
    assert_eq!(again.tokenize_word("aba").unwrap(), [6, 4]);
}

#[test]
fn word_vectors_give_one_piece_a_word() {
    let temp = temp();
    let path = temp.path().join("vectors.txt");
    let vectors = "the 0.1 -2e-3\n, 1 2\nnew york 3 4\nthe 5 6\n7 8 9\n";
    fs_err::write(&path, vectors).unwrap();
    let mut tokenizer = Tokenizer::load(&path, None).unwrap();
    assert_eq!(tokenizer.kind(), TokenizerKind::WordLevel);
    assert_eq!(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", ",", "new york", "7"]
            .map(|piece| tokenizer.id(piece)),
        [0, 1, 2, 3, 4, 5, 6, 7, 8].map(Some)
    );
    assert_eq!(
        ["THE", "7", "unheard", "[SEP]"]
            .map(|word| tokenizer.tokenize_word(word).unwrap().to_vec()),
        [[5], [8], [1], [1]]
    );
    let headed = temp.path().join("header.vec");
    fs_err::write(&headed, format!("5 2\n{vectors}")).unwrap();
    assert_eq!(Tokenizer::load(&headed, None).unwrap().identity(), tokenizer.identity());
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &fs_err::read(&path).unwrap()).unwrap();
    let gz = temp.path().join("vectors.txt.gz");
    fs_err::write(&gz, packed.finish().unwrap()).unwrap();
    assert_eq!(Tokenizer::load(&gz, None).unwrap().identity(), tokenizer.identity());
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_piece() {
    let temp = temp();
    let folder = bert_folder(temp.path(), "bert-uncased");
    let plain = Tokenizer::load(&folder, None).unwrap();
    let mark = |path: &Path| {
        fs_err::write(path, format!("\u{feff}{}", fs_err::read_to_string(path).unwrap())).unwrap();
    };
    mark(&folder.join("vocab.txt"));
    fs_err::write(folder.join("tokenizer_config.json"), "\u{feff}{\"do_lower_case\": true}")
        .unwrap();
    assert_eq!(Tokenizer::load(&folder, None).unwrap().identity(), plain.identity());
    let saved = temp.path().join("saved");
    plain.save(&saved).unwrap();
    mark(&saved.join("tokenizer.json"));
    assert_eq!(Tokenizer::load(&saved, None).unwrap().identity(), plain.identity());
    let vectors = temp.path().join("vectors.txt");
    fs_err::write(&vectors, "\u{feff}the 0.1 2\n").unwrap();
    assert_eq!(Tokenizer::load(&vectors, None).unwrap().id("the"), Some(5));
}

#[test]
fn clear_refusals() {
    let temp = temp();
    let refused = |path: &Path, code: u8, text: &str| {
        let error = Tokenizer::load(path, None).unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.hint().is_some() || code == 74, "{error}");
    };
    let roberta = temp.path().join("roberta");
    fs_err::create_dir(&roberta).unwrap();
    refused(&roberta, 64, "no tokeniser");
    fs_err::write(roberta.join("vocab.json"), "{}").unwrap();
    refused(&roberta, 64, "merges.txt");
    fs_err::write(roberta.join("merges.txt"), "a b c\n").unwrap();
    refused(&roberta, 65, "vocab.json");
    fs_err::write(roberta.join("vocab.json"), r#"{"a": 0}"#).unwrap();
    refused(&roberta.join("vocab.json"), 65, "not a tokeniser");
    let bpe = temp.path().join("tokenizer.json");
    fs_err::write(
        &bpe,
        tokenizers::Tokenizer::new(tokenizers::models::bpe::BPE::default())
            .to_string(false)
            .unwrap(),
    )
    .unwrap();
    refused(&bpe, 65, "[CLS]");
    fs_err::write(&bpe, "{").unwrap();
    refused(&bpe, 65, "tokenizer.json: not valid JSON");
    let vocab = temp.path().join("vocab.txt");
    let config = temp.path().join("tokenizer_config.json");
    for (settings, code, text) in [
        (r#"{"do_lower_case": "no"}"#, 65, "do_lower_case"),
        (r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#, 65, "BertJapaneseTokenizer"),
        (r#"{"tokenizer_class": "RobertaTokenizer"}"#, 65, "vocab.json and merges.txt"),
        (r#"{"added_tokens_decoder": {"9": {"content": "a"}}}"#, 65, "`a` has number 9"),
    ] {
        fs_err::write(&vocab, "a\nb\n").unwrap();
        fs_err::write(&config, settings).unwrap();
        refused(&vocab, code, text);
    }
    fs_err::remove_file(&config).unwrap();
    fs_err::write(&vocab, "a\nb\n").unwrap();
    refused(&vocab, 65, "[CLS]");
    fs_err::write(&vocab, "").unwrap();
    refused(&vocab, 65, "empty");
    fs_err::write(&vocab, b"a\n\xff\n").unwrap();
    refused(&vocab, 65, "row 1: not UTF-8");
    let vectors = temp.path().join("vectors.txt");
    fs_err::write(&vectors, "a 1 2\nb 1\n").unwrap();
    refused(&vectors, 65, "row 1: fewer than 2 values");
    let packed = temp.path().join("vectors.txt.gz");
    fs_err::write(&packed, b"\x1f\x8b cut short").unwrap();
    refused(&packed, 65, "vectors.txt.gz");
    refused(&temp.path().join("bert-base-uncased"), 64, "there is no tokeniser at");
    let few = Tokenizer::load_with(&bert_folder(temp.path(), "b"), None, 200).unwrap_err();
    assert_eq!(few.exit_code(), 64);
}

/// The ids that the published DSDocRE code makes of three documents, markers taken out, equal ours.
/// The library panics where the JSON breaks off inside a decoder (found by `tests/fuzz`).
#[test]
fn a_saved_tokenizer_cut_anywhere_is_refused() {
    let temp = temp();
    let tokenizer = Tokenizer::load(&bert_folder(temp.path(), "bert-uncased"), None).unwrap();
    tokenizer.save(&temp.path().join("saved")).unwrap();
    let whole = fs_err::read(temp.path().join("saved/tokenizer.json")).unwrap();
    let decoder = whole.windows(9).position(|bytes| bytes == b"\"decoder\"").unwrap();
    let path = temp.path().join("cut.json");
    for end in (decoder..decoder + 90).chain([0, whole.len() / 3, whole.len() - 2]) {
        fs_err::write(&path, &whole[..end]).unwrap();
        assert_eq!(Tokenizer::load(&path, None).unwrap_err().exit_code(), 65, "cut at {end}");
    }
}

#[test]
#[cfg_attr(not(reference_data), ignore = "DOCRE_SHARED names no reference data")]
fn pieces_equal_the_reference() {
    let shared = crate::reference_data();
    let mut tokenizer = Tokenizer::load(&shared.join("parity/vocab.txt"), None).unwrap();
    assert_eq!(tokenizer.vocab_size(), 30_522);
    let case = shared.join("parity/dsdocre-ranker");
    let documents: serde_json::Value =
        serde_json::from_slice(&fs_err::read(case.join("docs.json")).unwrap()).unwrap();
    let bytes = fs_err::read(case.join("inputs.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor("doc").unwrap();
    let ids: Vec<i64> = tensor
        .data()
        .chunks_exact(8)
        .map(|id| i64::from_le_bytes(id.try_into().unwrap()))
        .collect();
    let length = tensor.shape()[1];
    let special = tokenizer.special().clone();
    let skipped: Vec<u32> =
        special.unused.iter().chain([&special.cls, &special.sep, &special.pad]).copied().collect();
    assert_eq!(documents.as_array().unwrap().len(), 3);
    for (document, row) in documents.as_array().unwrap().iter().zip(ids.chunks_exact(length)) {
        let reference: Vec<u32> =
            row.iter().map(|&id| id as u32).filter(|id| !skipped.contains(id)).collect();
        let words = document["sents"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|sentence| sentence.as_array().unwrap());
        let ours: Vec<u32> = words
            .flat_map(|word| tokenizer.tokenize_word(word.as_str().unwrap()).unwrap().to_vec())
            .collect();
        assert!(reference.len() > 50 && reference.len() <= ours.len());
        assert_eq!(ours[..reference.len()], reference, "{}", document["title"]);
        let cut = row[length - 1] == i64::from(special.sep);
        assert!(cut || ours.len() == reference.len(), "only a full row may be cut");
    }
}

/// The short way for plain words gives what the whole way gives.
#[test]
fn plain_words_take_no_other_path_in_effect() {
    let temp = temp();
    for name in ["bert-uncased", "bert-cased"] {
        let tokenizer = Tokenizer::load(&bert_folder(temp.path(), name), None).unwrap();
        assert!(tokenizer.inner.plain.is_some());
        for word in [
            "Unaffable",
            "unaffable",
            "THE",
            "the",
            "the2",
            "xyz",
            "7",
            "sep",
            "SEP",
            &"the".repeat(33),
            &"the".repeat(34),
        ] {
            assert_eq!(
                tokenizer.inner.tokenize(word).unwrap(),
                tokenizer.inner.tokenizer.encode_fast(word, false).unwrap().get_ids(),
                "{word}"
            );
        }
    }
}
