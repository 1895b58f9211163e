//! Which library makes the world, and where ranks meet without MPI, by environment variables.
//!
//! Not for meeting: [`C10dCommunicator`](super::C10dCommunicator) does that.

use std::path::PathBuf;

use super::launcher::{Launched, Launcher};
use crate::{Error, Result};

/// Forces one way: `mpi`, `c10d` or `auto`.
const WORLD: &str = "DOCRE_WORLD";

/// The port of the store where only a host is given; it is torchrun's.
const PORT: u16 = 29500;

/// Ports that are derived from the number of a job: below those that Linux hands out by itself.
const JOB_PORTS: std::ops::Range<u16> = 15_000..30_000;

/// The library that makes a world of several processes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// MPI, with the launcher's process manager.
    Mpi,
    /// c10d, over a store of keys.
    C10d(Rendezvous),
}

/// Where ranks meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendezvous {
    /// Host of the store.
    pub(super) host: String,
    /// Its port.
    pub(super) port: u16,
    /// Who serves it.
    pub(super) served: Served,
    /// What keys begin with: attempts of one launch do not see each other's.
    pub(super) prefix: String,
}

/// Who serves the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// What started the ranks.
    ByLauncher,
    /// Rank 0, at the port.
    ByRankZero,
    /// Rank 0, at a port of its choice that it writes to this file; all ranks are on one machine.
    Announced(PathBuf),
}

impl Way {
    /// Chooses for this process. `mpi`: whether the program was built with MPI.
    ///
    /// # Errors
    /// A recipe error (64) if the choice cannot be followed, or says where to meet incompletely.
    pub(super) fn choose(launched: &Launched, mpi: bool) -> Result<Self> {
        Self::choose_in(launched, mpi, &|name| std::env::var(name).ok())
    }

    fn choose_in(
        launched: &Launched,
        mpi: bool,
        lookup: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let wish = lookup(WORLD).unwrap_or_else(|| "auto".into());
        let by_mpi = match (wish.trim(), launched.kind) {
            ("c10d", _) => false,
            ("mpi", Launcher::Torchrun | Launcher::Launch) => {
                return Err(launched.cannot_join(
                    "it makes no MPI world, which DOCRE_WORLD=mpi asks for",
                    "unset DOCRE_WORLD, or start with `mpirun -n N` or `srun --mpi=pmix`",
                ));
            }
            ("mpi", _) if !mpi => {
                return Err(launched.cannot_join(
                    "this program was built without MPI, which DOCRE_WORLD=mpi asks for",
                    "unset DOCRE_WORLD, or build it with its default features",
                ));
            }
            ("mpi", _) => true,
            ("auto" | "", kind) => mpi && makes_mpi_world(kind, lookup),
            (other, _) => {
                return Err(Error::recipe(format!("environment variable {WORLD} is `{other}`"))
                    .with_hint("set it to mpi, c10d or auto, or unset it"));
            }
        };
        if by_mpi { Ok(Self::Mpi) } else { Rendezvous::find(launched, lookup).map(Self::C10d) }
    }
}

fn makes_mpi_world(kind: Launcher, lookup: &impl Fn(&str) -> Option<String>) -> bool {
    match kind {
        Launcher::OpenMpi | Launcher::Mpich => true,
        Launcher::Slurm => Launcher::is_managed(lookup),
        Launcher::Torchrun | Launcher::Launch | Launcher::None => false,
    }
}

impl Rendezvous {
    /// Where [`Launch`](super::Launch) serves the store.
    pub(super) fn of_launch(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, served: Served::ByLauncher, prefix: prefix("0") }
    }

    fn find(launched: &Launched, lookup: &impl Fn(&str) -> Option<String>) -> Result<Self> {
        let host = lookup("MASTER_ADDR").filter(|host| !host.trim().is_empty());
        let port =
            lookup("MASTER_PORT").map(|text| parse_port("MASTER_PORT", &text)).transpose()?;
        let by_zero = |host: String, port: u16| Self {
            host,
            port,
            served: Served::ByRankZero,
            prefix: prefix("0"),
        };
        match (launched.kind, host) {
            (Launcher::Launch, Some(host)) => Ok(Self::of_launch(&host, port.unwrap_or(PORT))),
            (Launcher::Torchrun, Some(host)) => {
                let agent = lookup("TORCHELASTIC_USE_AGENT_STORE");
                let served = if agent.is_some_and(|agent| agent.eq_ignore_ascii_case("true")) {
                    Served::ByLauncher
                } else {
                    Served::ByRankZero
                };
                let attempt = lookup("TORCHELASTIC_RESTART_COUNT").unwrap_or_default();
                let (port, prefix) = (port.unwrap_or(PORT), prefix(attempt.trim()));
                Ok(Self { host, port, served, prefix })
            }
            (Launcher::Slurm, host) => of_slurm(host, port, launched, lookup),
            (_, Some(host)) => Ok(by_zero(host, port.unwrap_or(PORT))),
            (Launcher::OpenMpi, None) => of_one_machine(launched, lookup),
            (_, None) => Err(unknown(launched)),
        }
    }

    /// The address, for messages.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

fn prefix(attempt: &str) -> String {
    format!("docre/{}/", if attempt.is_empty() { "0" } else { attempt })
}

fn unknown(launched: &Launched) -> Error {
    launched.cannot_join(
        "without MPI nothing says where they meet",
        "set MASTER_ADDR to the host of rank 0, and MASTER_PORT to a free port there, for all \
         ranks; or start with `docre-pretrain launch`",
    )
}

/// Rank 0 is on the first host of a step.
fn of_slurm(
    host: Option<String>,
    port: Option<u16>,
    launched: &Launched,
    lookup: &impl Fn(&str) -> Option<String>,
) -> Result<Rendezvous> {
    let list = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"].into_iter().find_map(lookup);
    let host = host.or_else(|| first_host(&list?)).ok_or_else(|| unknown(launched))?;
    let number = |name| lookup(name).and_then(|text| text.trim().parse::<u64>().ok());
    let [job, step] = ["SLURM_JOB_ID", "SLURM_STEP_ID"].map(|name| number(name).unwrap_or(0));
    let derived = job.wrapping_mul(31).wrapping_add(step) % JOB_PORTS.len() as u64;
    let port = port.unwrap_or(JOB_PORTS.start + derived as u16);
    let prefix = prefix(&format!("{job}.{step}"));
    Ok(Rendezvous { host, port, served: Served::ByRankZero, prefix })
}

/// The first name of a list such as `gpu[03-07,12],login1`.
fn first_host(list: &str) -> Option<String> {
    let (mut name, mut letters) = (String::new(), list.trim().chars());
    while let Some(letter) = letters.next() {
        match letter {
            ',' => break,
            '[' => {
                let inside: String = letters.by_ref().take_while(|letter| *letter != ']').collect();
                name += inside.split([',', '-']).next()?;
            }
            letter => name.push(letter),
        }
    }
    Some(name).filter(|name| !name.is_empty())
}

/// Ranks of `mpirun` on one machine share the folder of its session, which it removes itself.
fn of_one_machine(
    launched: &Launched,
    lookup: &impl Fn(&str) -> Option<String>,
) -> Result<Rendezvous> {
    let here = lookup("OMPI_COMM_WORLD_LOCAL_SIZE").and_then(|text| text.trim().parse().ok());
    let folder = lookup("PMIX_SERVER_TMPDIR").filter(|_| here == Some(launched.world_size));
    let Some(folder) = folder else { return Err(unknown(launched)) };
    let served = Served::Announced(PathBuf::from(folder).join("docre-store"));
    Ok(Rendezvous { host: "127.0.0.1".into(), port: 0, served, prefix: prefix("0") })
}

/// Reads a port.
///
/// # Errors
/// A recipe error (64) that names `what` holds it.
pub(super) fn parse_port(what: &str, text: &str) -> Result<u16> {
    text.trim().parse().ok().filter(|port| *port > 0).ok_or_else(|| {
        Error::recipe(format!("{what} is `{text}`, not a port")).with_hint("use 1 to 65535")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(kind: Launcher, mpi: bool, variables: &[(&str, &str)]) -> Result<Way> {
        let launched = Launched { world_size: 2, rank: 1, local_rank: 1, kind };
        Way::choose_in(&launched, mpi, &|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn meeting(way: Result<Way>) -> (String, Served, String) {
        match way.unwrap() {
            Way::C10d(at) => (at.address(), at.served, at.prefix),
            Way::Mpi => panic!("MPI"),
        }
    }

    #[test]
    fn a_process_manager_chooses_mpi_where_it_is_built_in() {
        let managed = ("PMIX_RANK", "1");
        assert_eq!(choose(Launcher::OpenMpi, true, &[]).unwrap(), Way::Mpi);
        assert_eq!(choose(Launcher::Mpich, true, &[]).unwrap(), Way::Mpi);
        assert_eq!(choose(Launcher::Slurm, true, &[managed]).unwrap(), Way::Mpi);
        let nodes = ("SLURM_STEP_NODELIST", "n1");
        assert!(matches!(choose(Launcher::Slurm, true, &[nodes]), Ok(Way::C10d(_))));
        assert!(matches!(choose(Launcher::Slurm, false, &[nodes, managed]), Ok(Way::C10d(_))));
        let told = [("DOCRE_WORLD", "c10d"), ("MASTER_ADDR", "a")];
        assert!(matches!(choose(Launcher::OpenMpi, true, &told), Ok(Way::C10d(_))));
    }

    #[test]
    fn wishes_that_cannot_be_followed_are_refused_with_a_way_out() {
        let wish = [("DOCRE_WORLD", "mpi")];
        for (kind, mpi, says) in [
            (Launcher::Torchrun, true, "makes no MPI world"),
            (Launcher::OpenMpi, false, "built without MPI"),
        ] {
            let error = choose(kind, mpi, &wish).unwrap_err();
            assert_eq!(error.exit_code(), 64);
            assert!(error.to_string().contains(says) && error.hint().is_some(), "{error}");
        }
        let error = choose(Launcher::OpenMpi, true, &[("DOCRE_WORLD", "gloo")]).unwrap_err();
        assert!(error.to_string().contains("DOCRE_WORLD is `gloo`"), "{error}");
        for kind in [Launcher::Mpich, Launcher::OpenMpi, Launcher::Torchrun] {
            let error = choose(kind, false, &[]).unwrap_err();
            assert!(error.hint().unwrap().contains("MASTER_ADDR"), "{error}");
        }
        let port = [("MASTER_ADDR", "a"), ("MASTER_PORT", "70000")];
        let error = choose(Launcher::Torchrun, false, &port).unwrap_err();
        assert!(error.to_string().contains("MASTER_PORT is `70000`"), "{error}");
    }

    #[test]
    fn torchrun_serves_the_store_if_it_says_so() {
        let address = [("MASTER_ADDR", "n1"), ("MASTER_PORT", "4000")];
        let plain = meeting(choose(Launcher::Torchrun, true, &address));
        assert_eq!(plain, ("n1:4000".into(), Served::ByRankZero, "docre/0/".into()));
        let agent = [("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "2")];
        let agent = meeting(choose(Launcher::Torchrun, true, &[&address[..], &agent].concat()));
        assert_eq!(agent, ("n1:4000".into(), Served::ByLauncher, "docre/2/".into()));
    }

    #[test]
    fn slurm_names_the_first_host_and_each_job_has_its_port() {
        for (list, host) in [
            ("gpu[03-07,12],login1", "gpu03"),
            ("n1", "n1"),
            ("a1,b[1-2]", "a1"),
            ("r[1-2]n[10-11]", "r1n10"),
        ] {
            assert_eq!(first_host(list).as_deref(), Some(host), "{list}");
        }
        assert_eq!(first_host(""), None);
        let job =
            [("SLURM_STEP_NODELIST", "n[1-2]"), ("SLURM_JOB_ID", "7"), ("SLURM_STEP_ID", "1")];
        let (address, served, prefix) = meeting(choose(Launcher::Slurm, false, &job));
        assert_eq!((address.as_str(), served), ("n1:15218", Served::ByRankZero));
        assert_eq!(prefix, "docre/7.1/");
        let told = [&job[..], &[("MASTER_ADDR", "x"), ("MASTER_PORT", "9")]].concat();
        assert_eq!(meeting(choose(Launcher::Slurm, false, &told)).0, "x:9");
    }

    #[test]
    fn ranks_of_mpirun_on_one_machine_meet_in_its_folder() {
        let folder = ("PMIX_SERVER_TMPDIR", "/tmp/session");
        let here = ("OMPI_COMM_WORLD_LOCAL_SIZE", "2");
        let (_, served, _) = meeting(choose(Launcher::OpenMpi, false, &[folder, here]));
        assert_eq!(served, Served::Announced("/tmp/session/docre-store".into()));
        let apart = [folder, ("OMPI_COMM_WORLD_LOCAL_SIZE", "1")];
        assert_eq!(choose(Launcher::OpenMpi, false, &apart).unwrap_err().exit_code(), 64);
    }
}
