use std::time::Instant;

use object_store::memory::InMemory;

use super::*;
use crate::fake_bucket::{FakeBucket, Fault, Speech};

/// Three tries, and hardly a pause.
const HASTE: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(5),
        base: 2.0,
    },
    max_retries: 2,
    retry_timeout: Duration::from_secs(10),
};

/// Every service, as a server of its own.
pub(crate) fn services() -> [FakeBucket; 3] {
    [Speech::Amazon, Speech::Google, Speech::Azure].map(FakeBucket::new)
}

/// A store on a server, with settings besides those that lead there and parts of 1,000 bytes.
fn store(url: &str, server: &FakeBucket, more: &[(&str, &str)]) -> Objects {
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Objects {
        part: 1_000,
        ..Objects::open(url, server.environment().into_iter().chain(more), HASTE).unwrap()
    }
}

/// A store under a prefix of a bucket of a server, with parts of 1,000 bytes.
pub(crate) fn on(server: &FakeBucket, prefix: &str) -> Box<dyn Store> {
    Box::new(store(&server.url(prefix), server, &[]))
}

/// A store that needs no server.
pub(crate) fn in_memory() -> Box<dyn Store> {
    let objects = Objects::over(
        "memory:///runs/a",
        Service::Amazon,
        Name::from("runs/a"),
        Box::new(InMemory::new()),
    )
    .unwrap();
    Box::new(Objects { part: 1_000, ..objects })
}

/// Every kind of request, with a part of what it looks like to the server.
fn requests(store: &Objects, local: &Path) -> Vec<(&'static str, Result<()>)> {
    let (small, large) = (local.join("small"), local.join("large"));
    fs_err::write(&small, [1; 700]).unwrap();
    fs_err::write(&large, [2; 2_500]).unwrap();
    let upload = |file: &Path, key: &str| store.upload(file, key);
    let parts = match store.service {
        Service::Azure => vec!["PUT runs/a/s/large?blockid", "PUT runs/a/s/large?comp=blocklist"],
        _ => vec![
            "POST runs/a/s/large?uploads",
            "PUT runs/a/s/large?partNumber=2",
            "POST runs/a/s/large?uploadId",
        ],
    };
    let (listing, removal) = match store.service {
        Service::Azure => ("GET ?comp=list", "POST ?comp=batch"),
        _ => ("GET ?delimiter=/&list-type=2", "DELETE runs/a/s/small?"),
    };
    let mut made = vec![("PUT runs/a/s/small?", upload(&small, "s/small"))];
    made.extend(parts.into_iter().map(|part| (part, upload(&large, "s/large"))));
    made.extend([
        ("GET runs/a/s/small?", store.read("s/small").map(drop)),
        ("HEAD runs/a/s/large?", store.download("s/large", &local.join("again"))),
        ("GET runs/a/s/large?", store.download("s/large", &local.join("again"))),
        ("GET runs/a/s/large?", store.read_range("s/large", 3..1_400).map(drop)),
        (listing, store.files("s").map(drop)),
        (removal, store.remove("s/small")),
    ]);
    made
}

/// Makes each kind of request with a fault that it meets so many times; `look` gets what came of
/// it, and how often it was made with and without.
fn with_fault(
    server: &FakeBucket,
    store: &Objects,
    times: usize,
    fault: Fault,
    look: impl Fn(&str, Result<()>, usize, usize),
) {
    let local = tempfile::tempdir().unwrap();
    server.reset();
    let kinds: Vec<&str> = requests(store, local.path())
        .into_iter()
        .map(|(kind, outcome)| (kind, outcome.unwrap()).0)
        .collect();
    let count =
        |kind: &str, seen: &[String]| seen.iter().filter(|said| said.contains(kind)).count();
    let calm = server.reset();
    for (at, kind) in kinds.into_iter().enumerate() {
        // All are made, so that there is something to read and to delete; the fault is for one of
        // them.
        server.fail(kind, times, fault);
        let (_, outcome) = requests(store, local.path()).swap_remove(at);
        look(kind, outcome, count(kind, &server.reset()), count(kind, &calm));
    }
}

#[test]
fn what_a_service_refuses_for_a_moment_is_asked_again() {
    for fault in [Fault::Status(503), Fault::Status(429), Fault::Cut] {
        for server in services() {
            let store = store(&server.url("runs/a"), &server, &[]);
            with_fault(&server, &store, 2, fault, |kind, outcome, asked, usual| {
                // Answers that are cut off after a head that promised success: it is the whole
                // checkpoint that is tried again.
                if matches!(fault, Fault::Cut)
                    && (kind.contains("?uploads") || kind.contains("list"))
                    && !kind.contains("blocklist")
                {
                    assert_eq!(outcome.unwrap_err().exit_code(), 74, "{kind}");
                    return;
                }
                outcome.unwrap_or_else(|error| panic!("{kind}, {fault:?}: {error}"));
                assert_eq!(asked, usual + 2, "{kind}, {fault:?}");
            });
            assert_eq!(server.contents().0, ["runs/a/s/large"]);
            assert!(store.read("s/large").unwrap() == Some(vec![2; 2_500]));
        }
    }
}

#[test]
fn what_a_service_refuses_for_good_is_told_at_once() {
    for server in services() {
        let (url, store) = (server.url("runs/a"), store(&server.url("runs/a"), &server, &[]));
        with_fault(
            &server,
            &store,
            usize::MAX,
            Fault::Status(403),
            |kind, outcome, asked, usual| {
                let error = outcome.unwrap_err();
                let told = error.to_string();
                assert!(
                    error.exit_code() == 74
                        && told.contains(&url)
                        && told.contains("403 Forbidden"),
                    "{kind}: {told}"
                );
                assert!(
                    told.contains("<Code>Fault</Code>") || kind.starts_with("HEAD"),
                    "what the service says of it: {told}"
                );
                let hint = error.hint().unwrap();
                assert!(
                    hint.contains("allow to list") && hint.contains(store.service.variables()),
                    "{kind}: {error:?}"
                );
                assert!(asked <= usual, "{kind} was asked {asked} times");
            },
        );
        assert_eq!(server.contents().1, 0, "uploads that failed are taken back");
    }
}

#[test]
fn a_service_that_stays_away_is_an_error_within_the_limit() {
    for server in services() {
        let (url, store) = (server.url("runs/a"), store(&server.url("runs/a"), &server, &[]));
        with_fault(
            &server,
            &store,
            usize::MAX,
            Fault::Status(500),
            |kind, outcome, asked, usual| {
                let told = outcome.unwrap_err().to_string();
                assert!(
                    told.contains("500 Internal Server Error") && told.contains("after 2 retries"),
                    "{kind}: {told}"
                );
                assert!(asked <= 3 * usual, "{kind} was asked {asked} times");
            },
        );
        drop(server);
        let begun = Instant::now();
        let error = store.write("recipe.toml", b"x").unwrap_err();
        assert!(
            error.exit_code() == 74
                && error.to_string().contains(&format!("{url}/recipe.toml cannot be written")),
            "{error}"
        );
        assert!(
            error.to_string().to_lowercase().contains("connection refused"),
            "the cause of causes is told: {error}"
        );
        assert!(error.hint().unwrap().contains(store.service.variables()), "{error:?}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_slow_answer_is_waited_for_and_a_very_slow_one_is_not() {
    let server = FakeBucket::new(Speech::Amazon);
    let store = store(&server.url("runs/a"), &server, &[("AWS_TIMEOUT", "2 s")]);
    server.fail("PUT runs/a/x", 1, Fault::Slow(Duration::from_millis(100)));
    store.write("x", b"1").unwrap();
    assert_eq!(server.reset(), ["PUT runs/a/x?"]);
    server.fail("runs/a/x", 1, Fault::Slow(Duration::from_millis(3_000)));
    assert_eq!(store.read("x").unwrap().unwrap(), b"1");
    assert_eq!(server.reset(), ["GET runs/a/x?"; 2]);
    server.fail("runs/a/x", 9, Fault::Slow(Duration::from_millis(3_000)));
    let begun = Instant::now();
    let error = store.read("x").unwrap_err();
    assert!(
        error.to_string().contains("timed out") || error.to_string().contains("timeout"),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn credentials_come_from_the_environment_alone() {
    for (server, who) in services().iter().zip([
        "AWS_ACCESS_KEY_ID",
        "GOOGLE_BEARER_TOKEN",
        "AZURE_STORAGE_ACCOUNT_NAME",
    ]) {
        let error = store(&server.url("runs/a"), server, &[(who, "stranger")])
            .write("x", b"1")
            .unwrap_err();
        assert!(error.to_string().contains("<Code>Stranger</Code>"), "{error}");
    }
    for url in [
        "s3://friend:secret@bucket/a",
        "gs://bucket/a?token=secret",
        "https://a.blob.core.windows.net/b?sig=secret",
    ] {
        let error = Objects::open(url, std::iter::empty(), HASTE).unwrap_err();
        assert_eq!(error.exit_code(), 64);
        assert!(
            !error.to_string().contains("secret") && error.hint().unwrap().contains("credentials"),
            "{error}"
        );
    }
}

#[test]
fn every_form_of_url_leads_to_its_service_and_prefix() {
    let account = [
        ("AZURE_STORAGE_ACCOUNT_NAME", "me"),
        ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5"),
        ("GOOGLE_SKIP_SIGNATURE", "true"),
    ];
    let open = |url: &str| {
        Objects::open(
            url,
            account.iter().map(|(name, value)| ((*name).into(), (*value).into())),
            HASTE,
        )
    };
    for (url, service, root) in [
        ("s3://bucket/runs/a", Service::Amazon, "runs/a"),
        ("s3a://bucket/", Service::Amazon, ""),
        ("https://s3.eu-west-1.amazonaws.com/bucket/runs", Service::Amazon, "runs"),
        ("gs://bucket/runs/", Service::Google, "runs"),
        ("az://container/runs/a", Service::Azure, "runs/a"),
        ("abfss://container@me.dfs.core.windows.net/runs", Service::Azure, "runs"),
    ] {
        let objects = open(url).unwrap();
        assert_eq!((objects.service, objects.root.as_ref()), (service, root), "{url}");
    }
    for url in ["https://example.org/a", "s3://", "s3:///a", "gs:/x", "memory:///a"] {
        let error = open(url).unwrap_err();
        assert!(error.exit_code() == 64 && error.hint().is_some(), "{url}: {error}");
    }
}

#[test]
fn every_service_names_its_own_variables() {
    // Nothing listens on the first port.
    let nowhere = [
        (
            "s3://bucket/a",
            "AWS_",
            vec![
                ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
                ("AWS_ALLOW_HTTP", "true"),
                ("AWS_SKIP_SIGNATURE", "true"),
            ],
        ),
        (
            "gs://bucket/a",
            "GOOGLE_",
            vec![
                ("GOOGLE_BASE_URL", "http://127.0.0.1:1"),
                ("GOOGLE_ALLOW_HTTP", "true"),
                ("GOOGLE_BEARER_TOKEN", "x"),
            ],
        ),
        (
            "az://container/a",
            "AZURE_",
            vec![
                ("AZURE_STORAGE_ACCOUNT_NAME", "me"),
                ("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:1"),
                ("AZURE_ALLOW_HTTP", "true"),
                ("AZURE_SKIP_SIGNATURE", "true"),
            ],
        ),
    ];
    for (url, start, settings) in nowhere {
        let settings =
            settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let error = Objects::open(url, settings, HASTE).unwrap().write("x", b"1").unwrap_err();
        assert!(error.exit_code() == 74 && error.to_string().contains("127.0.0.1:1"), "{error}");
        assert!(error.to_string().starts_with(&format!("{url}/x cannot be written")), "{error}");
        assert!(error.hint().unwrap().contains(start), "{error:?}");
    }
    let error = Objects::open("az://container/a", std::iter::empty(), HASTE).unwrap_err();
    assert!(
        error.exit_code() == 74 && error.hint().unwrap().contains("AZURE_STORAGE_ACCOUNT_NAME"),
        "{error}"
    );
}

#[test]
fn a_connection_that_should_be_encrypted_and_is_not_is_an_error() {
    let server = FakeBucket::new(Speech::Amazon);
    let url = server.url("runs/a");
    let plain =
        server.environment().into_iter().find(|(name, _)| name == "AWS_ENDPOINT_URL").unwrap().1;
    let refused =
        store(&url, &server, &[("AWS_ALLOW_HTTP", "false")]).write("x", b"1").unwrap_err();
    assert!(refused.to_string().contains("URL scheme is not allowed"), "{refused}");
    let encrypted = plain.replace("http:", "https:");
    let error = store(
        &url,
        &server,
        &[("AWS_ENDPOINT_URL", &encrypted), ("AWS_CONNECT_TIMEOUT", "300 ms")],
    )
    .write("x", b"1")
    .unwrap_err();
    assert!(error.exit_code() == 74 && error.to_string().contains(&url), "{error}");
}
