"""Compares word pieces with those of transformers' AutoTokenizer over a matrix of vocabularies,
files, settings and scripts. A folder that this program refuses is counted, never passed silently.

For the sentencepiece families the pieces are compared with those of the tokenizers library, which
transformers 4 hands their tokenizer.json to; transformers 5 makes them anew and leaves out the
normaliser of DeBERTa, for one. The tokenizer that is saved must give the same pieces in
AutoTokenizer.

usage: test_tokenizers.py BINARY
"""
import collections
import itertools
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import pyarrow.parquet
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, logging

logging.set_verbosity_error()
binary = sys.argv[1]

# Sentences of many scripts, so that vocabularies hold pieces of each.
TEXT = """
Orla Vint joined the Kesto council in Narvia . The council met twice a year , in May and June .
El año pasado la canción llegó a los niños de Málaga . À Noël , la sœur naïve mangeait une crêpe .
Die Größe der Straße überraschte Jürgen . Ο Σίσυφος ζει στην Αθήνα . Москва слезам не верит , ёлка .
İstanbul'da ılık çay içtik . القدس مدينة قديمة . שלום עולם . हिन्दी में लिखा गया . ภาษาไทยไม่มีช่องว่าง
東京に行く人は多い 。 林若晴在纳维亚出生 。 한국어 문장 하나 . カタカナとひらがな . e-mail U.S. don't 3.14 1,000 50%
""".strip()
# What tokenisers treat in ways of their own: folding, marks, blanks, control characters, symbols.
ODD = [
    "E\u0301cole", "ﬁn", "ǅ", "ẞ", "İ", "ı", "Å", "Å", "Ⅳ", "x²", "½", "ｆｕｌｌ", "a\u200bb", "a\u00adb",
    "a\u200db", "\ufeffword", "a\u00a0b", "a\u3000b", "x\u0007y", "x\u007fy", "\ufffd", "a\ufffdb", "😀", "👩‍👩‍👧",
    "🇫🇷", "a😀b", "Kesto😀", "$", "€5", "+", "<", "a_b", "`", "~", "…", "“quoted”", "—", "。", "、", "（注）",
    "㍿", "𠀀", "豈", "〆", "々", "ー", "ｶﾀｶﾅ", "가", "각", "ि", "ก็", "ﷺ", "\u0660\u0661", "ʼn", "ŉ", "KESTO", "kesto",
    "McDonald", "ÉCOLE", "école", "NAÏVE", "ΣΊΣΥΦΟΣ", "ЁЛКА", "a" * 101, "é" * 60, "[SEP]", "[unused1]", "<s>",
    "[MASK]x", "##ing", "Ġthe", "▁the", "x.y.z", "A.B.", "--", "....", "\U000e0001", "\u202eabc", "n\u0303",
]
WORDS = list(dict.fromkeys([*TEXT.split(), *ODD]))
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def word_piece(lowercase, chinese=True):
    """Pieces of a WordPiece vocabulary."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, handle_chinese_chars=chinese)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=700, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(TEXT.splitlines() * 3, trainer)
    return tokenizer


def byte_pairs():
    """A byte-level BPE tokeniser."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=ROBERTA, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXT.splitlines() * 3, trainer)
    return tokenizer


def lines(tokenizer):
    """A vocab.txt."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return "".join(f"{piece}\n" for piece, _ in vocabulary)


CASED, UNCASED, WHOLE, BYTES = word_piece(False), word_piece(True), word_piece(False, False), byte_pairs()

# Sentencepiece families: class, model file, special pieces in the order of their numbers.
FAMILIES = {
    "deberta-v2": ("DebertaV2Tokenizer", "spm.model", ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]),
    "xlm-roberta": ("XLMRobertaTokenizer", "sentencepiece.bpe.model", ["<unk>", "<s>", "</s>"]),
    "albert": ("AlbertTokenizer", "spiece.model", ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]),
    "xlnet": ("XLNetTokenizer", "spiece.model", ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>"]),
}
NAMED = {
    "deberta-v2": ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]"], "xlm-roberta": ["<s>", "</s>", "<pad>", "<unk>", "<mask>"],
    "albert": ["[CLS]", "[SEP]", "<pad>", "<unk>", "[MASK]"], "xlnet": ["<cls>", "<sep>", "<pad>", "<unk>", "<mask>"],
}


def scored_pieces():
    """Pieces with scores, trained on the text, without special ones."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXT.splitlines() * 3, trainer)
    # Scores of a model file have 32 bits.
    single = lambda score: struct.unpack("<f", struct.pack("<f", score))[0]
    return [(piece, single(score)) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"][1:]]


SCORED = scored_pieces()


def varint(number):
    """A number as Protocol Buffers write it."""
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number, content):
    """A field with bytes or a number in it."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def piece_model(family):
    """The model file of sentencepiece."""
    special = FAMILIES[family][2]
    unknown = next(at for at, piece in enumerate(special) if piece.lower() in ("<unk>", "[unk]"))
    pieces = [(piece, 0.0, 2 if at == unknown else 3) for at, piece in enumerate(special)]
    pieces += [(piece, score, 1) for piece, score in SCORED]
    out = b"".join(
        field(1, field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + field(3, kind))
        for text, score, kind in pieces
    )
    return out + field(2, field(3, 1) + field(40, unknown)) + field(3, field(1, b"identity"))


def unigram(family, lower):
    """The tokenizer.json that transformers 4 makes of the model file."""
    special = FAMILIES[family][2]
    pieces = [(piece, 0.0) for piece in special] + SCORED
    if family == "xlm-roberta":
        pieces = [(piece, 0.0) for piece in ["<s>", "<pad>", "</s>", "<unk>"]] + SCORED + [("<mask>", 0.0)]
    if family in ("albert", "xlnet"):
        rare = lambda piece: len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()
        pieces = [(piece, score - 100 if rare(piece) else score) for piece, score in pieces]
    unknown = next(at for at, (piece, _) in enumerate(pieces) if piece.lower() in ("<unk>", "[unk]"))
    tokenizer = Tokenizer(models.Unigram(pieces, unknown, False))
    fold = [normalizers.Lowercase()] if lower else []
    blanks = lambda by: normalizers.Replace(Regex(" {2,}"), by)
    tokenizer.normalizer = normalizers.Sequence({
        "deberta-v2": [*fold, normalizers.Strip(), blanks(" ")],
        "xlm-roberta": [normalizers.Strip(left=False, right=True), blanks("▁")],
        "albert": [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(),
                   normalizers.StripAccents(), *fold, blanks(" ")],
        "xlnet": [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(),
                  normalizers.StripAccents(), *fold, blanks(" ")],
    }[family])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in NAMED[family]])
    return tokenizer


def sentencepiece_cases():
    """(name, files, tokenizer of the library) of every folder."""
    for family, (of_class, file, _) in FAMILIES.items():
        model = {"config.json": json.dumps({"model_type": family})}
        for lower in [None, True, False] if family != "xlm-roberta" else [None]:
            config = {} if lower is None else {"do_lower_case": lower}
            folds = family == "albert" if lower is None else lower
            source = unigram(family, folds)
            for said in [{}, {"tokenizer_class": of_class}, {"tokenizer_class": of_class + "Fast"}]:
                settings = {"tokenizer_config.json": json.dumps({**config, **said})}
                yield f"{family} {file} lower={lower} {said}", {file: piece_model(family), **model, **settings}, source
                # With a tokenizer.json the setting does not count.
                whole = {"tokenizer.json": source.to_str(), **model, **settings}
                yield f"{family} json lower={lower} {said}", whole, source
        names = dict(zip(["cls_token", "sep_token", "pad_token", "unk_token", "mask_token"], NAMED[family]))
        plain = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names})
        source = unigram(family, False)
        yield f"{family} as it stands", {"tokenizer.json": source.to_str(), "tokenizer_config.json": plain}, source
        # The older spelling of the pre-tokeniser.
        old = json.loads(source.to_str())
        old["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": True}
        del old["model"]["byte_fallback"]
        yield f"{family} old spelling", {"tokenizer.json": json.dumps(old), "tokenizer_config.json": plain}, source


def bert_files(kind, source):
    """Files of a BERT folder: a vocabulary, a tokenizer.json, or both."""
    files = {}
    if kind != "json":
        files["vocab.txt"] = lines(source)
    if kind != "vocab":
        files["tokenizer.json"] = source.to_str()
    return files


def roberta_files(kind, prefix=False):
    """Files of a RoBERTa folder."""
    parsed = json.loads(BYTES.to_str())
    if kind == "json":
        parsed["pre_tokenizer"]["add_prefix_space"] = prefix
        return {"tokenizer.json": json.dumps(parsed)}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in parsed["model"]["merges"]]
    return {
        "vocab.json": json.dumps(parsed["model"]["vocab"]),
        "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
    }


def generic(source, normalizer=None, pre_tokenizer=None):
    """A tokenizer.json that no class of transformers rebuilds."""
    tokenizer = Tokenizer.from_str(source.to_str())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    return {"tokenizer.json": tokenizer.to_str()}


def added(content, special, normalized=False, **more):
    """An entry of `added_tokens_decoder`."""
    return {"content": content, "special": special, "normalized": normalized, "lstrip": False,
            "rstrip": False, "single_word": False, **more}


def cases():
    """(name, files) of every folder."""
    model = {"config.json": json.dumps({"model_type": "bert"})}
    for (name, source), kind in itertools.product(
        [("cased", CASED), ("uncased", UNCASED), ("whole", WHOLE)], ["vocab", "json", "both"],
    ):
        files = {**bert_files(kind, source), **model}
        for lower, accents, chinese in itertools.product([None, True, False], repeat=3):
            settings = {"do_lower_case": lower, "strip_accents": accents, "tokenize_chinese_chars": chinese}
            settings = {key: value for key, value in settings.items() if value is not None}
            # Without a word about case, a vocabulary with capitals keeps case here (docs/formats.md).
            if lower is None and name != "uncased":
                continue
            said = ",".join(f"{key}={value}" for key, value in settings.items())
            yield f"bert {name} {kind} {said}", {**files, "tokenizer_config.json": json.dumps(settings)}
        yield f"bert {name} {kind} null accents", {
            **files, "tokenizer_config.json": json.dumps({"do_lower_case": True, "strip_accents": None}),
        }
    for of_class in ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "ElectraTokenizerFast",
                     "MPNetTokenizer", "PreTrainedTokenizerFast", "LxmertTokenizer", "RobertaTokenizer",
                     "BertJapaneseTokenizer", "AlbertTokenizer", "NobodysTokenizer"]:
        config = {"tokenizer_class": of_class, "do_lower_case": False}
        yield f"class {of_class}", {**bert_files("both", CASED), "tokenizer_config.json": json.dumps(config)}
    for model_type in ["distilbert", "electra", "mpnet", "roberta", "albert", "unheard-of"]:
        files = {"config.json": json.dumps({"model_type": model_type}), "tokenizer_config.json": '{"do_lower_case": false}'}
        yield f"model {model_type}", {**bert_files("json", CASED), **files}
    for prefix, kind in itertools.product([None, True, False], ["vocab", "json"]):
        config = {} if prefix is None else {"add_prefix_space": prefix}
        for inside in [False, True] if kind == "json" else [False]:
            yield f"roberta {kind} prefix={prefix} inside={inside}", {
                **roberta_files(kind, inside), "tokenizer_config.json": json.dumps(config),
                "config.json": json.dumps({"model_type": "roberta"}),
            }
    plain = {"tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"})}
    for name, normalizer in {
        "none": None, "nfc": normalizers.NFC(), "nfkc": normalizers.NFKC(), "lower": normalizers.Lowercase(),
        "sequence": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
        "replace": normalizers.Replace("K", "k"), "prepend": normalizers.Prepend("x"),
        "keep marks": normalizers.BertNormalizer(clean_text=False, lowercase=False),
    }.items():
        yield f"generic normaliser {name}", {**generic(CASED, normalizer), **plain}
    for name, splitter in {
        "blanks": pre_tokenizers.WhitespaceSplit(), "words": pre_tokenizers.Whitespace(),
        "digits": pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(individual_digits=True)]),
        "punctuation": pre_tokenizers.Punctuation(), "scripts": pre_tokenizers.UnicodeScripts(),
        "metaspace": pre_tokenizers.Metaspace(),
    }.items():
        yield f"generic splitter {name}", {**generic(CASED, None, splitter), **plain}
    for prefix in [None, True, False]:
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
        config |= {} if prefix is None else {"add_prefix_space": prefix}
        files = roberta_files("json", bool(prefix))
        yield f"generic byte pairs prefix={prefix}", {**files, "tokenizer_config.json": json.dumps(config)}
    for name, token in {"special": added("Kesto", True), "plain": added("est", False), "folded": added("KESTO", False, True)}.items():
        source = Tokenizer.from_str(CASED.to_str())
        parsed = json.loads(source.to_str())
        parsed["added_tokens"].append({"id": len(CASED.get_vocab()), **token})
        for of_class in ["PreTrainedTokenizerFast", "BertTokenizer"]:
            config = {"tokenizer_class": of_class, "do_lower_case": False, "unk_token": "[UNK]"}
            yield f"tokenizer.json with {name} piece, {of_class}", {"tokenizer.json": json.dumps(parsed), "tokenizer_config.json": json.dumps(config)}
    for name, token in {
        "special": added("Kesto", True), "plain": added("Kesto", False), "folded": added("kesto", False, True),
        "inside": added("est", False), "whole word": added("est", False, single_word=True),
        "known": None,
    }.items():
        number = len(CASED.get_vocab())
        entry = {str(number): token} if token else {"4": added("[MASK]", True)}
        config = {"added_tokens_decoder": entry, "do_lower_case": name == "folded"}
        yield f"added {name}", {**bert_files("both", CASED), **model, "tokenizer_config.json": json.dumps(config)}
    legacy = {"added_tokens.json": json.dumps({"Narvia!": len(CASED.get_vocab())}), "tokenizer_config.json": '{"do_lower_case": false}'}
    yield "added_tokens.json", {**bert_files("vocab", CASED), **model, **legacy}
    other = {"tokenizer_config.json": json.dumps({"do_lower_case": False, "unk_token": "[MASK]"})}
    yield "another unknown piece", {**bert_files("vocab", CASED), **model, **other}
    twice = lines(CASED).splitlines()
    twice[twice.index("The")] = "the" if "the" in twice else twice[50]
    yield "a piece twice", {"vocab.txt": "\n".join(twice) + "\n", **model, "tokenizer_config.json": '{"do_lower_case": false}'}
    yield "carriage returns", {"vocab.txt": lines(CASED).replace("\n", "\r\n"), **model, "tokenizer_config.json": '{"do_lower_case": false}'}
    for key, value in {"never_split": ["Kesto"], "do_basic_tokenize": False, "model_max_length": 16, "split_special_tokens": False}.items():
        config = {"do_lower_case": False, key: value}
        yield f"setting {key}", {**bert_files("both", CASED), **model, "tokenizer_config.json": json.dumps(config)}
    with_mesh = json.loads(CASED.to_str())
    with_mesh["model"]["max_input_chars_per_word"] = 6
    yield "short words alone", {"tokenizer.json": json.dumps(with_mesh), **model, "tokenizer_config.json": '{"do_lower_case": false}'}


def ours(folder, work):
    """Pieces of every word, or the message of a refusal."""
    document = {"title": "words", "sents": [WORDS], "labels": [],
                "vertexSet": [[{"name": "Orla", "sent_id": 0, "pos": [at, at + 1], "type": "PER"}] for at in (0, 3)]}
    (work / "words.json").write_text(json.dumps([document]))
    done = subprocess.run(
        [binary, "prepare", "--format", "docred", "--input", work / "words.json", "--tokenizer", folder, "--output", work / "shards"],
        capture_output=True, text=True,
    )
    if done.returncode:
        return None, done.stderr.strip().replace("\n", " ")
    (shard,) = (work / "shards").glob("train-*.parquet")
    row = pyarrow.parquet.read_table(shard).to_pylist()[0]
    ends = [*row["word_starts"], len(row["pieces"])][1:]
    return [row["pieces"][start:end] for start, end in zip(row["word_starts"], ends)], done.stderr


def saved_pieces(work):
    """Pieces of every word by AutoTokenizer from the tokenizer that was saved."""
    saved = AutoTokenizer.from_pretrained(work / "shards" / "tokenizer")
    return [saved.encode(word, add_special_tokens=False, split_special_tokens=True) for word in WORDS]


def write(folder, files):
    """Writes files of text or bytes."""
    folder.mkdir()
    for file, content in files.items():
        if isinstance(content, bytes):
            (folder / file).write_bytes(content)
        else:
            (folder / file).write_text(content, newline="")


def judge(name, expected, got, show, outcome):
    """Counts a folder, and prints the first word that differs."""
    wrong = [(word, mine, his) for word, mine, his in zip(WORDS, got, expected) if mine != his]
    outcome["PROBLEM" if wrong else "equal"] += 1
    if wrong:
        word, mine, his = wrong[0]
        print(f"{name}: PROBLEM: {len(wrong)} of {len(WORDS)} words, such as {word!r}: {show(mine)} for {show(his)}")


def main():
    outcome = collections.Counter()
    for name, files in cases():
        with tempfile.TemporaryDirectory() as work:
            work = pathlib.Path(work)
            folder = work / "tokenizer"
            write(folder, files)
            got, message = ours(folder, work)
            try:
                theirs = AutoTokenizer.from_pretrained(folder)
            except Exception as error:  # any failure means that there is nothing to agree with
                outcome["transformers refuses"] += 1
                print(f"{name}: transformers refuses ({str(error).split(chr(10))[0][:80]}), ours {'refuses' if got is None else 'reads'}")
                continue
            if got is None:
                outcome["refused"] += 1
                print(f"{name}: refused: {message[:200]}")
                continue
            expected = [theirs.encode(word, add_special_tokens=False, split_special_tokens=True) for word in WORDS]
            show = lambda pieces: [theirs.convert_ids_to_tokens(piece) if piece < len(theirs) else piece for piece in pieces]
            judge(name, expected, got, show, outcome)
    for name, files, theirs in sentencepiece_cases():
        with tempfile.TemporaryDirectory() as work:
            work = pathlib.Path(work)
            write(work / "tokenizer", files)
            got, message = ours(work / "tokenizer", work)
            if got is None:
                outcome["PROBLEM"] += 1
                print(f"{name}: PROBLEM: refused: {message[:200]}")
                continue
            theirs.encode_special_tokens = True
            expected = [theirs.encode(word, add_special_tokens=False).ids for word in WORDS]
            show = lambda pieces: [theirs.id_to_token(piece) for piece in pieces]
            judge(name, expected, got, show, outcome)
            judge(f"{name}, saved", expected, saved_pieces(work), show, outcome)
    print(", ".join(f"{count} {what}" for what, count in sorted(outcome.items())))
    sys.exit(outcome["PROBLEM"] > 0 or outcome["equal"] == 0)


main()
