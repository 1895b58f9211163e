use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

const LIMITS: ClientLimits =
    ClientLimits { time: Duration::from_millis(400), bytes: 2048, clients: 8 };

/// A request to damage.
const WHOLE: &[u8] = b"GET /data.json HTTP/1.1\r\nHost: localhost:80\r\nAccept: */*\r\n\r\n";

/// A server that says what it was asked; it ends with the tests.
fn start(limits: ClientLimits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let echo = |request: &WebRequest| {
        WebAnswer::text(200, &format!("{} {}", request.method, request.target))
    };
    thread::spawn(move || answer_all(&listener, limits, &(Arc::new(echo) as Arc<Answering>)));
    address
}

/// What comes back for these bytes until the server hangs up.
fn ask(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may hang up before all is written.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_request_is_answered_with_its_length_and_the_connection_closed() {
    let address = start(LIMITS);
    let answer = ask(address, b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\r\nContent-Length: 8\r\n"), "{answer}");
    assert!(answer.ends_with("Connection: close\r\n\r\nGET /a?b"), "{answer}");
}

#[test]
fn junk_and_requests_without_end_get_an_error() {
    let address = start(LIMITS);
    assert!(ask(address, b"\x16\x03\x01\x02\x00\x01").starts_with("HTTP/1.1 400 "));
    assert!(ask(address, b"GET / HTTP/1.1\r\nno colon\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let endless = [b"GET /".as_slice(), &[b'a'; 4096]].concat();
    assert!(ask(address, &endless).starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS + 1));
    assert!(ask(address, many.as_bytes()).starts_with("HTTP/1.1 400 "));
    // A body that nobody reads does not take the answer away.
    let body = [b"POST / HTTP/1.1\r\n\r\n".as_slice(), &[b'x'; 50_000]].concat();
    assert!(ask(address, &body).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_client_that_sends_nothing_or_drips_is_dropped() {
    let address = start(LIMITS);
    let started = Instant::now();
    assert_eq!(ask(address, b""), "");
    assert_eq!(ask(address, b"GET / HT"), "");
    let mut dripping = TcpStream::connect(address).unwrap();
    let dropped = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(50));
        dripping.write_all(b"a").is_err()
    });
    assert!(dropped, "a byte now and then kept the connection open");
    assert!(started.elapsed() < Duration::from_secs(15));
    // One who asks and never reads is dropped too.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _deaf = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let large = WebAnswer::text(200, &"x".repeat(64 << 20));
    assert!(send(&stream, &large, LIMITS.deadline()).is_err());
}

#[test]
fn more_clients_than_there_are_places_are_turned_away_and_places_come_back() {
    let few = ClientLimits { clients: 2, ..LIMITS };
    let address = start(few);
    let silent: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    thread::sleep(Duration::from_millis(100));
    let request = b"GET / HTTP/1.1\r\n\r\n";
    let turned_away = ask(address, request);
    assert!(turned_away.is_empty() || turned_away.starts_with("HTTP/1.1 503 "), "{turned_away}");
    drop(silent);
    let served = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(50));
        ask(address, request).starts_with("HTTP/1.1 200 ")
    });
    assert!(served);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        ParsedRequest::of(&bytes);
    }

    #[test]
    fn damaged_requests_are_read_or_refused(at in 0..WHOLE.len(), byte in any::<u8>()) {
        let mut bytes = WHOLE.to_vec();
        bytes[at] = byte;
        if let ParsedRequest::Whole(request) = ParsedRequest::of(&bytes) {
            prop_assert!(!request.target.contains(|letter: char| letter.is_control()));
        }
        prop_assert_eq!(ParsedRequest::of(&WHOLE[..at]), ParsedRequest::Part);
    }
}

#[test]
fn random_clients_do_not_stop_the_server() {
    let address = start(LIMITS);
    let mut seed = 17_u64;
    for round in 0..60 {
        let mut bytes = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
        for _ in 0..round % 7 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 33) as usize % bytes.len();
            bytes[at] = (seed >> 24) as u8;
        }
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream.write_all(&bytes);
        // Hang up at once: the server must cope with an answer that nobody takes.
    }
    thread::sleep(LIMITS.time);
    let request = b"GET / HTTP/1.1\r\n\r\n";
    let served = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(50));
        ask(address, request).starts_with("HTTP/1.1 200 ")
    });
    assert!(served);
}
