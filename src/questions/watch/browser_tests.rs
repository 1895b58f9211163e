use super::super::tests::{EVIL, made_up_run};
use super::*;

fn site(address: &str) -> (tempfile::TempDir, Site) {
    let run = made_up_run();
    let watched = WatchedRun::open(run.path()).unwrap();
    let site = Site::new(watched, address.parse().unwrap(), 2).unwrap();
    (run, site)
}

fn request(method: &str, target: &str, host: Option<&str>) -> WebRequest {
    WebRequest { method: method.into(), target: target.into(), host: host.map(str::to_owned) }
}

/// Status and text of an answer.
fn read(answer: &WebAnswer) -> (u16, String) {
    let text = answer.whole_text();
    let status = text["HTTP/1.1 ".len()..][..3].parse().unwrap();
    (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[test]
fn two_addresses_are_answered_and_nothing_else() {
    let (_run, site) = site("127.0.0.1:80");
    let status = |method: &str, target: &str, host: Option<&str>| {
        read(&site.answer(&request(method, target, host))).0
    };
    for (method, target, expected) in [
        ("GET", "/", 200),
        ("GET", "/data.json", 200),
        ("GET", "/favicon.ico", 404),
        ("GET", "/../run.json", 404),
        ("GET", "//", 404),
        ("GET", "/data.json?x", 404),
        ("HEAD", "/", 405),
        ("POST", "/data.json", 405),
        ("get", "/", 405),
    ] {
        assert_eq!(status(method, target, Some("127.0.0.1:80")), expected, "{method} {target}");
    }
    for (host, expected) in [
        (None, 200),
        (Some("localhost:8080"), 200),
        (Some("[::1]:80"), 200),
        (Some("evil.example:80"), 403),
        (Some("localhost.evil.example"), 403),
    ] {
        assert_eq!(status("GET", "/data.json", host), expected, "{host:?}");
    }
}

#[test]
fn on_an_address_that_others_reach_any_name_may_be_used() {
    let (_run, site) = self::site("0.0.0.0:80");
    assert_eq!(read(&site.answer(&request("GET", "/", Some("node17:80")))).0, 200);
}

#[test]
fn data_tell_stages_ranks_and_drawings_without_a_word_that_is_not_escaped() {
    let (_run, site) = site("127.0.0.1:80");
    let (_, text) = read(&site.answer(&request("GET", "/data.json", None)));
    let data: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(data["stages"][0]["step"], "3 of 10");
    assert_eq!(data["stages"][0]["progress"], 0.3);
    assert_eq!(data["stages"][0]["left"], "7.0 s left");
    assert_eq!((&data["at_work"], &data["ranks"][0]["well"]), (&json!(true), &json!(true)));
    let titles: Vec<&str> =
        data["charts"].as_array().unwrap().iter().map(|c| c["title"].as_str().unwrap()).collect();
    let stage = format!("pretrain {EVIL}");
    assert_eq!(titles[..2], [format!("{stage}, loss"), "dev F1".to_owned()]);
    assert!(titles.contains(&format!("{stage}, memory").as_str()), "{titles:?}");
    for svg in data["charts"].as_array().unwrap().iter().map(|chart| &chart["svg"]) {
        assert!(!svg.as_str().unwrap().contains(EVIL), "{svg}");
    }
    let timeline = data["timeline"].as_str().unwrap();
    assert!(timeline.contains("&lt;img") && !timeline.contains(EVIL), "{timeline}");
    let page = read(&site.answer(&request("GET", "/", None))).1;
    assert_eq!(page.matches("<script").count(), 1);
}

#[test]
fn a_line_that_cannot_be_read_is_an_error_on_the_page() {
    let (run, site) = site("127.0.0.1:80");
    fs_err::write(run.path().join("metrics.jsonl"), "{\n").unwrap();
    let (status, text) = read(&site.answer(&request("GET", "/data.json", None)));
    assert_eq!(status, 500);
    assert!(text.contains("\"error\"") && text.contains("metrics.jsonl"), "{text}");
}

#[test]
fn an_address_that_is_none_is_refused_with_a_hint() {
    let run = made_up_run();
    for address in ["8080", "somewhere:80", "127.0.0.1:99999", "203.0.113.7:1"] {
        let run = WatchedRun::open(run.path()).unwrap();
        let error = serve(run, address, 2, |_| Ok(())).unwrap_err();
        assert_eq!(error.exit_code(), 64, "{address}");
        assert!(error.to_string().contains(address), "{error}");
    }
}

/// The page as a browser shows it after some updates: five seconds of its own time.
fn shown(url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let run = std::process::Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--dump-dom", url])
        .output()
        .unwrap();
    String::from_utf8(run.stdout).unwrap()
}

#[test]
#[cfg_attr(not(chromium), ignore = "there is no chromium on the PATH")]
fn a_browser_shows_the_run_and_runs_nothing_of_it() {
    let folder = made_up_run();
    let run = WatchedRun::open(folder.path()).unwrap();
    let (sender, urls) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        serve(run, "127.0.0.1:0", 1, |url| {
            sender.send(url.to_owned()).unwrap();
            Ok(())
        })
    });
    let url = urls.recv().unwrap();
    let dom = shown(&url);
    for part in ["3 of 10", "7.0 s left", "host memory", "3.00 GB", "step 4 of pretrain"] {
        assert!(dom.contains(part), "{part} in {dom}");
    }
    assert!(dom.matches("<svg").count() >= 5, "{dom}");
    assert!(!dom.contains("<img"), "{dom}");
    assert!(dom.contains("&lt;img src=x onerror=alert(1)&gt;"), "{dom}");
}
