use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::fetch::{HubFolder, fetch_with};
use super::settings::HubSettings;
use super::*;
use crate::bad_disk::SmallDisk;
use crate::fake_hub::{FakeHub, Fault, etag};
use crate::{Error, Result};

const CONFIG: &[u8] = br#"{"model_type": "bert"}"#;
const VOCAB: &[u8] = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n";

/// Bytes of a large file.
fn weights() -> Vec<u8> {
    (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn bert(hub: &FakeHub, id: &str) -> String {
    hub.put(id, &[("config.json", CONFIG), ("vocab.txt", VOCAB), ("model.safetensors", &weights())])
}

struct Place {
    hub: FakeHub,
    temp: tempfile::TempDir,
    settings: HubSettings,
}

impl Place {
    fn new() -> Self {
        let (hub, temp) = (FakeHub::new(), tempfile::tempdir().unwrap());
        let settings = HubSettings {
            cache: temp.path().join("hub"),
            endpoint: hub.endpoint(),
            token: Some("secret".into()),
            offline: None,
            timeout: Duration::from_millis(500),
            pause: Duration::from_millis(10),
            tries: 3,
        };
        Self { hub, temp, settings }
    }

    fn fetch(&self, name: &str, wanted: Wanted) -> Result<HubFolder> {
        fetch_with(&self.settings, &RepoName::parse(name).unwrap(), wanted)
    }

    fn encoder(&self, name: &str) -> Result<HubFolder> {
        self.fetch(name, Wanted::Encoder(|_| Ok(())))
    }

    /// The error, which must have this code and this text, and a hint.
    fn refused(&self, name: &str, code: u8, text: &str) -> Error {
        let error = self.encoder(name).unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.hint().is_some() && !error.to_string().contains('\n'), "{error}");
        error
    }

    fn repo(&self, id: &str) -> PathBuf {
        self.settings.cache.join(format!("models--{}", id.replace('/', "--")))
    }

    /// Requests for the bytes of a file, as ranges.
    fn gets(&self, end: &str) -> Vec<String> {
        let asked = self.hub.asked().into_iter();
        let gets = asked.filter(|asked| {
            asked.method == "GET" && (asked.path.ends_with(end) || end == "store" && asked.at_store)
        });
        gets.map(|asked| asked.range.unwrap_or_default()).collect()
    }
}

fn text(path: impl AsRef<Path>) -> String {
    fs_err::read_to_string(path.as_ref()).unwrap()
}

#[test]
fn names_are_read_as_the_hub_allows_them() {
    let parsed = |text: &str| RepoName::parse(text).map(|name| (name.id, name.revision));
    let some = |id: &str, revision: &str| Some((id.to_owned(), revision.to_owned()));
    assert_eq!(parsed("org/some.model-1_x"), some("org/some.model-1_x", "main"));
    assert_eq!(parsed("org/name@v1.0"), some("org/name", "v1.0"));
    assert_eq!(parsed("org/name@refs/pr/3"), some("org/name", "refs/pr/3"));
    assert_eq!(parsed("bert-base-cased"), some("bert-base-cased", "main"));
    for other in [
        "",
        "tiny",
        "gigantic",
        "a/b/c",
        "/a/b",
        "a//b",
        "../b",
        "a/..",
        "./a",
        "a/b--c",
        "a/b..c",
        "a/-b",
        "a/b.",
        "a/b c",
        "a/b@",
        "a/b@../x",
        "a/b@x@y",
        "a\\b/c",
        "ä/b",
        "models/bert-base-cased",
        "~/b",
    ] {
        assert_eq!(parsed(other), None, "{other}");
    }
    let spellings = |text: &str| RepoName::parse(text).unwrap().spellings();
    assert_eq!(spellings("bert-base-cased"), ["bert-base-cased", "google-bert/bert-base-cased"]);
    assert_eq!(spellings("FacebookAI/xlm-roberta-base")[1], "xlm-roberta-base");
    assert_eq!(spellings("org/bert-base-cased"), ["org/bert-base-cased"]);
}

#[test]
fn the_environment_says_where_and_how() {
    let temp = tempfile::tempdir().unwrap();
    fs_err::write(temp.path().join("token"), " from-file \n").unwrap();
    let home = temp.path().display().to_string();
    let settings = |pairs: &[(&str, &str)]| {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        HubSettings::new(&move |name| {
            pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        })
    };
    let cache = |pairs: &[(&str, &str)]| settings(pairs).cache.display().to_string();
    let me = ("HOME", "/home/me");
    assert_eq!(cache(&[me]), "/home/me/.cache/huggingface/hub");
    assert_eq!(cache(&[me, ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
    assert_eq!(cache(&[me, ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/hf")]), "/home/me/hf/hub");
    assert_eq!(cache(&[me, ("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "$HOME/c")]), "/home/me/c");
    let both = [me, ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "${HOME}s/$NONE/x")];
    assert_eq!(cache(&both), "/home/mes/$NONE/x");
    assert_eq!(cache(&[me, ("HF_HUB_CACHE", "")]), "/home/me/.cache/huggingface/hub");
    let offline = |pairs: &[(&str, &str)]| settings(pairs).offline;
    for on in ["1", "true", "YES", "on"] {
        assert_eq!(offline(&[("HF_HUB_OFFLINE", on)]), Some("HF_HUB_OFFLINE"));
    }
    assert_eq!(offline(&[("TRANSFORMERS_OFFLINE", "1")]), Some("TRANSFORMERS_OFFLINE"));
    assert_eq!(offline(&[("HF_HUB_OFFLINE", "0")]), None);
    let token = |pairs: &[(&str, &str)]| settings(pairs).token;
    assert_eq!(token(&[("HF_TOKEN", " a\n"), ("HUGGING_FACE_HUB_TOKEN", "b")]), Some("a".into()));
    assert_eq!(token(&[("HUGGING_FACE_HUB_TOKEN", "b")]), Some("b".into()));
    assert_eq!(token(&[("HF_HOME", &home)]), Some("from-file".into()));
    let file = temp.path().join("token").display().to_string();
    assert_eq!(token(&[("HF_TOKEN_PATH", &file)]), Some("from-file".into()));
    assert_eq!(token(&[("HF_TOKEN", "a"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
    assert_eq!(settings(&[("HF_ENDPOINT", "http://x/")]).endpoint, "http://x");
    assert_eq!(settings(&[]).endpoint, "https://huggingface.co");
}

#[test]
fn a_repository_lies_in_the_cache_as_other_programs_expect_it() {
    let place = Place::new();
    let commit = bert(&place.hub, "org/bert");
    let found = place.encoder("org/bert").unwrap();
    let repo = place.repo("org/bert");
    assert_eq!((found.name.as_str(), &found.commit), ("org/bert", &commit));
    assert_eq!(found.folder, repo.join("snapshots").join(&commit));
    assert_eq!(text(repo.join("refs/main")), commit, "without a newline");
    assert_eq!(fs_err::read(found.folder.join("model.safetensors")).unwrap(), weights());
    let link = fs_err::read_link(found.folder.join("vocab.txt")).unwrap();
    assert_eq!(link, Path::new("../../blobs").join(etag(VOCAB)));
    let blobs = crate::base::entries(&repo.join("blobs")).unwrap();
    assert_eq!(blobs.len(), 3, "nothing is left over: {blobs:?}");
    assert!(repo.join(".no_exist").join(&commit).join("tokenizer.json").is_file());
    let locks = place.settings.cache.join(".locks/models--org--bert");
    assert!(locks.join(format!("{}.lock", etag(&weights()))).is_file());
    // The token is for the Hub alone, and only needed files are asked for.
    let asked = place.hub.asked();
    assert!(asked.iter().any(|asked| asked.at_store));
    for request in &asked {
        let expected = (!request.at_store).then_some("secret");
        assert_eq!(request.token.as_deref(), expected, "{}", request.path);
        assert!(!request.path.contains("pytorch_model"), "{}", request.path);
    }
    // Once more: one question, whether the branch has moved.
    assert_eq!(place.encoder("org/bert").unwrap(), found);
    let paths: Vec<String> = place.hub.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["/org/bert/resolve/main/config.json"]);
    // A commit needs none.
    assert_eq!(place.encoder(&format!("org/bert@{commit}")).unwrap(), found);
    assert_eq!(place.hub.asked().len(), 0);
}

#[test]
fn a_branch_that_moves_brings_what_has_changed() {
    let place = Place::new();
    let old = bert(&place.hub, "org/bert");
    place.encoder("org/bert").unwrap();
    let vocabulary = [VOCAB, b"more\n"].concat();
    let files: [(&str, &[u8]); 3] =
        [("config.json", CONFIG), ("vocab.txt", &vocabulary), ("model.safetensors", &weights())];
    let new = place.hub.put("org/bert", &files);
    place.hub.asked();
    let found = place.encoder("org/bert").unwrap();
    assert!(found.commit == new && new != old);
    assert_eq!(fs_err::read(found.folder.join("vocab.txt")).unwrap(), vocabulary);
    assert_eq!(place.gets("store"), [""; 0], "the weights are there already");
    let repo = place.repo("org/bert");
    assert_eq!(
        (text(repo.join("refs/main")), repo.join("snapshots").join(old).is_dir()),
        (new, true)
    );
}

#[test]
fn revisions_are_branches_pull_requests_and_commits() {
    let place = Place::new();
    let commit = bert(&place.hub, "org/bert");
    place.hub.change("org/bert", |repo| {
        let commit = repo.refs.remove("main").unwrap();
        repo.refs.insert("refs/pr/3".into(), commit);
    });
    let found = place.encoder("org/bert@refs/pr/3").unwrap();
    assert_eq!(text(place.repo("org/bert").join("refs/refs/pr/3")), commit);
    assert_eq!(found.commit, commit);
    place.refused("org/bert@v2", 64, "no such revision");
    place.refused("org/bert", 64, "no such revision");
}

#[test]
fn a_file_that_breaks_off_is_continued() {
    let place = Place::new();
    bert(&place.hub, "org/bert");
    let store = etag(&weights());
    place.hub.fail("GET", &store, Fault::Cut(1_000_000));
    place.hub.fail("GET", &store, Fault::Silent(500_000, Duration::from_secs(2)));
    let found = place.encoder("org/bert").unwrap();
    assert_eq!(fs_err::read(found.folder.join("model.safetensors")).unwrap(), weights());
    assert_eq!(place.gets(&store), ["", "bytes=1000000-", "bytes=1500000-"]);
    // What another process left is continued too.
    let (repo, blob) = (place.repo("org/bert"), place.repo("org/bert").join("blobs").join(&store));
    let incomplete = repo.join("blobs").join(format!("{store}.incomplete"));
    let again = |start: &[u8]| {
        fs_err::remove_dir_all(repo.join("snapshots")).unwrap();
        fs_err::remove_file(&blob).unwrap();
        fs_err::write(&incomplete, start).unwrap();
        place.encoder("org/bert").unwrap();
        assert_eq!(fs_err::read(&blob).unwrap(), weights());
        assert!(!incomplete.exists());
        place.gets(&store)
    };
    assert_eq!(again(&weights()[..2_999_999]), ["bytes=2999999-"]);
    assert_eq!(again(&weights()), [""; 0]);
    assert_eq!(again(&[weights(), vec![0]].concat()), [""]);
    assert_eq!(again(&[1; 10]), ["bytes=10-", ""], "its start was another file");
    place.hub.fail("GET", &store, Fault::Whole);
    assert_eq!(again(&weights()[..10]), ["bytes=10-"], "a server that gives no parts");
}

#[test]
fn a_file_that_always_breaks_off_is_an_error_and_its_start_stays() {
    let place = Place::new();
    bert(&place.hub, "org/bert");
    let store = etag(&weights());
    place.hub.fail("GET", &store, Fault::Cut(1_000));
    for _ in 0..3 {
        place.hub.fail("GET", &store, Fault::Cut(0));
    }
    let error = place.refused("org/bert", 74, "1000 of 3000000 bytes");
    assert!(error.hint().unwrap().contains("where it broke off"), "{error}");
    place.hub.asked();
    place.encoder("org/bert").unwrap();
    assert_eq!(place.gets(&store), ["bytes=1000-"]);
}

#[test]
fn content_with_another_hash_is_refused_and_not_kept() {
    let place = Place::new();
    bert(&place.hub, "org/bert");
    let large = etag(&weights());
    for (file, end) in [("vocab.txt", "vocab.txt"), ("model.safetensors", large.as_str())] {
        place.hub.fail("GET", end, Fault::Twisted);
        let error = place.refused("org/bert", 74, &format!("`{file}` arrives with the hash"));
        assert!(error.to_string().contains(&place.settings.endpoint), "{error}");
        let blobs = crate::base::entries(&place.repo("org/bert").join("blobs")).unwrap();
        assert!(blobs.iter().all(|(name, _)| !name.ends_with("incomplete")), "{blobs:?}");
        assert!(!place.repo("org/bert").join("refs/main").exists());
    }
    place.encoder("org/bert").unwrap();
}

#[test]
fn a_busy_hub_is_asked_again_and_a_broken_one_named() {
    let place = Place::new();
    bert(&place.hub, "org/bert");
    let config = "/resolve/main/config.json";
    place.hub.fail("HEAD", config, Fault::Status(429, &[("Retry-After", "1")]));
    place.hub.fail("GET", "vocab.txt", Fault::Status(503, &[]));
    let started = Instant::now();
    place.encoder("org/bert").unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "Retry-After is obeyed");
    fs_err::remove_dir_all(&place.settings.cache).unwrap();
    place.hub.fail("HEAD", config, Fault::Status(429, &[("Retry-After", "3600")]));
    let error = place.refused("org/bert", 74, "answers 429");
    assert!(error.hint().unwrap().contains("3600 s"), "{error}");
    let three = |status| {
        (0..3).for_each(|_| place.hub.fail("HEAD", config, Fault::Status(status, &[])));
    };
    three(503);
    place.refused("org/bert", 74, "answers 503");
    place.hub.fail("HEAD", config, Fault::Status(418, &[]));
    place.refused("org/bert", 74, "does not answer as the Hub does: 418");
    place.hub.fail("HEAD", config, Fault::Status(302, &[]));
    place.refused("org/bert", 74, "without a Location");
    place.hub.fail("HEAD", config, Fault::Status(200, &[("ETag", "\"../../x\"")]));
    place.refused("org/bert", 74, "the ETag `../../x`");
    // With a copy in the cache a busy hub is no obstacle.
    let found = place.encoder("org/bert").unwrap();
    three(500);
    assert_eq!(place.encoder("org/bert").unwrap(), found);
}

#[test]
fn repositories_that_may_not_be_read_are_named() {
    let place = Place::new();
    place.refused("org/nothing", 64, "there is no folder org/nothing, and http");
    bert(&place.hub, "org/gated");
    place.hub.change("org/gated", |repo| repo.gated = true);
    let error = place.refused("org/gated", 64, "accept its terms");
    assert!(error.hint().unwrap().contains("/org/gated, and set HF_TOKEN"), "{error}");
    bert(&place.hub, "org/private");
    place.hub.change("org/private", |repo| repo.token = "another".into());
    place.refused("org/private", 64, "or it is private");
    place.hub.change("org/private", |repo| repo.token = "secret".into());
    place.encoder("org/private").unwrap();
    // A redirect within the Hub keeps the token, as for a repository that has moved.
    let moved = Fault::Status(307, &[("Location", "/org/private/resolve/main/config.json")]);
    place.hub.fail("HEAD", "/bert-base-cased/resolve/main/config.json", moved);
    let error = place.encoder("bert-base-cased").unwrap_err();
    assert_eq!(error.exit_code(), 64, "its other files are not there: {error}");
}

#[test]
fn repositories_without_what_is_needed_are_named() {
    let place = Place::new();
    let files: [(&str, &[u8]); 2] = [("config.json", CONFIG), ("tf_model.h5", b"x")];
    place.hub.put("org/tf", &files);
    place.refused("org/tf", 64, "has no weights (model.safetensors or pytorch_model.bin)");
    let error = place.fetch("org/tf", Wanted::Tokenizer).unwrap_err();
    assert!(error.to_string().contains("has no vocabulary"), "{error}");
    place.hub.put("org/empty", &[("README.md", b"")]);
    place.refused("org/empty", 64, "has no config.json");
    // A tokeniser needs no config.json, an encoder no vocabulary.
    place.hub.put("org/words", &[("vocab.json", b"{}"), ("merges.txt", b"#"), ("spm.model", b"")]);
    let found = place.fetch("org/words", Wanted::Tokenizer).unwrap().folder;
    assert!(found.join("merges.txt").is_file() && !found.join("spm.model").exists());
    place.hub.put("org/bare", &[("config.json", CONFIG), ("pytorch_model.bin", b"x")]);
    assert!(place.encoder("org/bare").unwrap().folder.join("pytorch_model.bin").is_file());
}

#[test]
fn what_is_refused_by_its_configuration_is_not_fetched_any_further() {
    let place = Place::new();
    bert(&place.hub, "org/bert");
    let refuses: fn(&Path) -> Result<()> = |folder| {
        let config = text(folder.join("config.json"));
        Err(Error::recipe(format!("not {config}")).with_hint("name another"))
    };
    let error = place.fetch("org/bert", Wanted::Encoder(refuses)).unwrap_err();
    assert!(error.to_string().contains(r#"not {"model_type": "bert"}"#), "{error}");
    let asked: Vec<String> = place.hub.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(asked.len(), 2, "HEAD and GET of config.json: {asked:?}");
    assert!(asked.iter().all(|path| path.ends_with("/config.json")), "{asked:?}");
    assert!(!place.repo("org/bert").join("refs/main").exists());
    place.encoder("org/bert").unwrap();
}

#[test]
fn split_weights_are_fetched_by_their_index() {
    let place = Place::new();
    let index = br#"{"weight_map": {"a": "m-1.bin", "b": "m-2.bin", "c": "m-1.bin"}}"#;
    let mut files: Vec<(&str, &[u8])> = vec![
        ("config.json", CONFIG),
        ("vocab.txt", VOCAB),
        ("pytorch_model.bin.index.json", index),
        ("m-1.bin", b"1"),
        ("m-3.bin", b"3"),
    ];
    place.hub.put("org/split", &files);
    place.refused("org/split", 64, "has no m-2.bin");
    files.push(("m-2.bin", b"2"));
    place.hub.put("org/split", &files);
    let folder = place.encoder("org/split").unwrap().folder;
    let there = ["m-1.bin", "m-2.bin", "m-3.bin"].map(|file| folder.join(file).exists());
    assert_eq!(there, [true, true, false]);
}

#[test]
fn without_a_network_the_cache_counts() {
    let mut place = Place::new();
    let commit = bert(&place.hub, "google-bert/bert-base-cased");
    let found = place.encoder("google-bert/bert-base-cased").unwrap();
    place.hub.asked();
    place.settings.offline = Some("HF_HUB_OFFLINE");
    assert_eq!(place.encoder("google-bert/bert-base-cased").unwrap(), found);
    assert_eq!(place.encoder("bert-base-cased").unwrap().folder, found.folder, "the old name");
    assert_eq!(place.encoder(&format!("bert-base-cased@{commit}")).unwrap().folder, found.folder);
    let error = place.refused("org/other", 64, "HF_HUB_OFFLINE forbids the network");
    assert!(error.to_string().contains("models--org--other"), "{error}");
    fs_err::remove_file(found.folder.join("model.safetensors")).unwrap();
    place.refused("google-bert/bert-base-cased", 64, "weights (model.safetensors or pytorch");
    assert_eq!(place.hub.asked().len(), 0);
    // A hub that is away: the cache with a warning, or an error.
    place.settings.offline = None;
    place.settings.endpoint = "http://127.0.0.1:1".into();
    place.refused("google-bert/bert-base-cased", 74, "cannot be reached");
    fs_err::write(found.folder.join("model.safetensors"), weights()).unwrap();
    assert_eq!(place.encoder("google-bert/bert-base-cased").unwrap(), found);
    assert_eq!(place.encoder("bert-base-cased").unwrap().folder, found.folder);
}

/// What another program left: a commit with a newline, plain files for links.
#[test]
fn a_cache_of_plain_files_is_read() {
    let mut place = Place::new();
    place.settings.offline = Some("TRANSFORMERS_OFFLINE");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let repo = place.repo("org/bert");
    let snapshot = repo.join("snapshots").join(commit);
    fs_err::create_dir_all(&snapshot).unwrap();
    fs_err::create_dir_all(repo.join("refs/refs/pr")).unwrap();
    fs_err::write(repo.join("refs/refs/pr/3"), format!("{commit}\n")).unwrap();
    for (file, bytes) in [("config.json", CONFIG), ("vocab.txt", VOCAB), ("pytorch_model.bin", b"")]
    {
        fs_err::write(snapshot.join(file), bytes).unwrap();
    }
    assert_eq!(place.encoder("org/bert@refs/pr/3").unwrap().folder, snapshot);
    place.refused("org/bert", 64, "its revision main is not in");
}

#[test]
fn two_at_once_fetch_a_file_once() {
    let place = Place::new();
    bert(&place.hub, "org/bert");
    let store = etag(&weights());
    place.hub.fail("GET", &store, Fault::Silent(100, Duration::from_millis(300)));
    let folders: Vec<PathBuf> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| place.encoder("org/bert").unwrap().folder)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(folders.iter().all(|folder| *folder == folders[0]));
    assert_eq!(place.gets(&store), ["", "bytes=100-"]);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let mut place = Place::new();
    bert(&place.hub, "org/bert");
    let file = place.temp.path().join("file");
    fs_err::write(&file, "").unwrap();
    place.settings.cache = file.join("hub");
    let error = place.encoder("org/bert").unwrap_err();
    assert_eq!(error.exit_code(), 74);
    assert!(error.to_string().contains("file/hub"), "{error}");
}

#[test]
#[cfg_attr(not(can_mount), ignore = "mounting a file system needs root")]
fn a_full_disk_is_an_io_error_and_the_download_goes_on_later() {
    let mut place = Place::new();
    bert(&place.hub, "org/bert");
    let disk = SmallDisk::new(4 << 20);
    place.settings.cache = disk.path().join("hub");
    let ballast = disk.fill(1 << 20);
    let error = place.encoder("org/bert").unwrap_err();
    assert_eq!(error.exit_code(), 74);
    assert!(error.hint().unwrap().contains("free space on that disk"), "{error}");
    fs_err::remove_file(ballast).unwrap();
    place.hub.asked();
    place.encoder("org/bert").unwrap();
    let ranges = place.gets(&etag(&weights()));
    assert!(ranges.len() == 1 && ranges[0].starts_with("bytes="), "{ranges:?}");
}
