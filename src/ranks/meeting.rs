//! Where ranks meet without MPI: the store is served or reached, every rank says that it is here,
//! and finds the address at which the others reach it.
//!
//! Not for what ranks say to each other later (`c10d`).

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tch::TchError;

use super::rendezvous::{Rendezvous, Served};
use crate::base::{host_name, write_whole};
use crate::torch::c10d::KeyStore;
use crate::{Error, Result, exit_code};

/// The first nap of a wait; each is twice as long as the previous one.
pub(super) const SHORTEST_NAP: Duration = Duration::from_millis(1);

/// The longest nap of a wait.
pub(super) const LONGEST_NAP: Duration = Duration::from_millis(50);

/// Bound on an operation of the store that waits for nobody.
pub(super) const STORE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a rank says of itself at the meeting.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Arrival {
    size: usize,
    host: String,
    /// Address from which it reached the store.
    address: IpAddr,
}

/// What is left of the time until `deadline`; never nothing.
pub(super) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(SHORTEST_NAP)
}

/// libtorch's text without the place in its source.
pub(super) fn cause(error: &Error) -> String {
    let text = match error {
        Error::Torch(TchError::Torch(text)) => text.clone(),
        other => other.to_string(),
    };
    let line = text.lines().next().unwrap_or_default();
    let bare = line.strip_prefix('[').and_then(|line| Some(line.split_once("] ")?.1));
    bare.unwrap_or(line).to_owned()
}

/// Opens a socket for the store: on the host's own addresses, or on the machine alone if the host
/// is a name of the machine to itself.
///
/// # Errors
/// A recipe error (64) that names the address and why it cannot be used.
pub(super) fn listen_at(host: &str, port: u16) -> Result<TcpListener> {
    let loopback = (host, port)
        .to_socket_addrs()
        .is_ok_and(|mut found| found.all(|address| address.ip().is_loopback()));
    let own = if loopback && is_name_of_itself(host) {
        TcpListener::bind((host, port))
    } else {
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))
    };
    own.map_err(|error| {
        Error::recipe(format!("the ranks cannot meet at {host}:{port}: {error}"))
            .with_hint("choose another port: MASTER_PORT, or --rendezvous of `launch`")
    })
}

/// Whether a host is spelt so that no other machine could mean it.
fn is_name_of_itself(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Rank 0 serves the store.
pub(super) fn serve(at: &Rendezvous) -> Result<(KeyStore, Rendezvous, IpAddr)> {
    let listener = listen_at(&at.host, at.port)?;
    let port = listener.local_addr()?.port();
    let at = Rendezvous { port, ..at.clone() };
    let store = KeyStore::serve(listener, &at.prefix, STORE_TIMEOUT)?;
    if let Served::Announced(file) = &at.served {
        write_whole(file, port.to_string().as_bytes())?;
    }
    let named = (at.host.as_str(), port).to_socket_addrs().ok().and_then(|mut all| all.next());
    let own = named.and_then(|address| route_to(address.ip()));
    Ok((store, at, own.unwrap_or(IpAddr::from([127, 0, 0, 1]))))
}

/// Connects to the store of another process, which may not be there yet.
pub(super) fn reach(
    at: &Rendezvous,
    rank: usize,
    deadline: Instant,
) -> Result<(KeyStore, Rendezvous, IpAddr)> {
    let mut at = at.clone();
    let start = Instant::now();
    let last = loop {
        let met = found_port(&at).and_then(|port| {
            at.port = port;
            dial(&at.host, port, left(deadline))
        });
        match met {
            Ok(own) => {
                let store = KeyStore::connect(&at.host, at.port, &at.prefix, STORE_TIMEOUT);
                match store {
                    Ok(store) => return Ok((store, at, own)),
                    Err(error) if Instant::now() >= deadline => break cause(&error),
                    Err(_) => {}
                }
            }
            Err(error) if Instant::now() >= deadline => break error.to_string(),
            Err(_) => {}
        }
        thread::sleep(LONGEST_NAP);
    };
    let waited = start.elapsed().as_secs();
    let cause = format!("the store could not be reached for {waited} s: {last}");
    Err(Error::RankLost { rank, operation: format!("the meeting at {}", at.address()), cause })
}

fn found_port(at: &Rendezvous) -> std::io::Result<u16> {
    match &at.served {
        Served::Announced(file) => read_port(file),
        _ => Ok(at.port),
    }
}

fn read_port(file: &Path) -> std::io::Result<u16> {
    fs_err::read_to_string(file)?.trim().parse().map_err(std::io::Error::other)
}

/// Connects once; returns this machine's address on the way there.
fn dial(host: &str, port: u16, limit: Duration) -> std::io::Result<IpAddr> {
    let mut last = std::io::Error::other("the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, limit.min(STORE_TIMEOUT)) {
            Ok(stream) => return Ok(stream.local_addr()?.ip()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// This machine's address on the way to another. Nothing is sent.
fn route_to(other: IpAddr) -> Option<IpAddr> {
    const ANY_PORT: u16 = 9;
    let from: SocketAddr =
        if other.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect((other, ANY_PORT)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The address at which the others reach this rank. A machine may know itself by an address that
/// means another machine there: then the way to a rank elsewhere tells.
pub(super) fn reachable(own: IpAddr, arrivals: &[Arrival]) -> IpAddr {
    let elsewhere = arrivals.iter().find(|arrival| !arrival.address.is_loopback());
    match elsewhere {
        Some(arrival) if own.is_loopback() => route_to(arrival.address).unwrap_or(own),
        _ => own,
    }
}

/// Says that this rank is here, and waits for all others.
pub(super) fn meet(
    store: &KeyStore,
    address: &str,
    [rank, size]: [usize; 2],
    own: IpAddr,
    deadline: Instant,
    limit: Duration,
) -> Result<Vec<Arrival>> {
    let operation = || format!("the meeting at {address}");
    let broken =
        |error: &Error| Error::RankLost { rank, operation: operation(), cause: cause(error) };
    let refuse = |message: String| {
        let error = Error::recipe(message).with_hint(
            "give each launch a port of its own (MASTER_PORT), and each process a rank of its own",
        );
        Error::OfRank { rank, error: Box::new(error) }
    };
    if store.add(&format!("taken/{rank}"), 1).map_err(|error| broken(&error))? != 1 {
        return Err(refuse(format!("two processes at {address} have rank {rank}")));
    }
    let arrival = Arrival { size, host: host_name(), address: own };
    let json = serde_json::to_vec(&arrival).map_err(|error| Error::Bug(error.to_string()))?;
    store.set(&key_of(rank), &json).map_err(|error| broken(&error))?;
    let mut arrivals = Vec::with_capacity(size);
    for other in 0..size {
        let Ok(json) = store.get(&key_of(other), left(deadline)) else {
            return Err(absent(store, address, [rank, size], limit));
        };
        let arrival: Arrival = serde_json::from_slice(&json)
            .map_err(|error| Error::Bug(format!("the arrival of rank {other}: {error}")))?;
        if arrival.size != size {
            return Err(refuse(format!(
                "rank {other} on {} is one of {} ranks, this one of {size}",
                arrival.host, arrival.size
            )));
        }
        arrivals.push(arrival);
    }
    Ok(arrivals)
}

fn key_of(rank: usize) -> String {
    format!("rank/{rank}")
}

/// The error about ranks that did not come; the first of those that did says it for all.
fn absent(store: &KeyStore, address: &str, [rank, size]: [usize; 2], limit: Duration) -> Error {
    let operation = format!("the meeting at {address}");
    let mut missing = Vec::new();
    for other in 0..size {
        match store.has(&key_of(other)) {
            Ok(true) => {}
            Ok(false) => missing.push(other),
            Err(error) => return Error::RankLost { rank, operation, cause: cause(&error) },
        }
    }
    let Some(&first) = missing.first() else {
        let cause = "the store answered too late".into();
        return Error::RankLost { rank, operation, cause };
    };
    let speaker = (0..size).find(|other| !missing.contains(other)).unwrap_or(rank);
    if speaker != rank {
        return Error::Elsewhere { rank: speaker, code: exit_code::RANK_LOST };
    }
    let list: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let (plural, verb) = if list.len() == 1 { ("rank", "has") } else { ("ranks", "have") };
    let cause = format!(
        "{plural} {} of {size} {verb} not come within {} s",
        list.join(", "),
        limit.as_secs()
    );
    Error::RankLost { rank: first, operation, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(addresses: &[[u8; 4]]) -> Vec<Arrival> {
        let arrival = |address: &[u8; 4]| Arrival {
            size: addresses.len(),
            host: String::new(),
            address: (*address).into(),
        };
        addresses.iter().map(arrival).collect()
    }

    #[test]
    fn a_rank_is_reached_where_it_reached_the_store() {
        let (here, lan) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([10, 0, 0, 7]));
        assert_eq!(reachable(here, &arrivals(&[[127, 0, 0, 1], [127, 0, 1, 1]])), here);
        assert_eq!(reachable(lan, &arrivals(&[[127, 0, 0, 1], [10, 0, 0, 7]])), lan);
        // A rank beside the store sees a loopback address that is of no use to one elsewhere.
        let beside = reachable(here, &arrivals(&[[127, 0, 1, 1], [127, 0, 0, 2]]));
        assert!(beside.is_loopback());
        assert_eq!(route_to(here), Some(here));
    }

    #[test]
    fn a_store_for_this_machine_is_seen_by_it_alone() {
        for (host, alone) in [("127.0.0.1", true), ("localhost", true), ("0.0.0.0", false)] {
            let address = listen_at(host, 0).unwrap().local_addr().unwrap();
            assert_eq!(address.ip().is_loopback(), alone, "{host}: {address}");
        }
    }

    #[test]
    fn texts_of_gloo_lose_the_place_in_its_source() {
        let text = "[/gloo/pair.cc:538] Read error [127.0.0.1]:12: Connection reset by peer\nmore";
        let error = Error::Torch(TchError::Torch(text.into()));
        assert_eq!(cause(&error), "Read error [127.0.0.1]:12: Connection reset by peer");
    }
}
