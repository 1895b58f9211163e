//! `launch`: the ranks of a world without MPI.

use std::ffi::OsString;

use clap::{Args, Parser};

use super::{Cli, Verb};
use crate::ranks::Launch;
use crate::{Error, Result};

/// Start a verb on several ranks of this machine, or of several, without MPI
#[derive(Debug, Args)]
pub struct LaunchVerb {
    /// Ranks on this machine
    #[arg(short = 'n', long, value_name = "N")]
    ranks: usize,
    /// Machines; `launch` is started once on each of them, with the same -n
    #[arg(long, value_name = "N", default_value_t = 1)]
    nodes: usize,
    /// This machine among them, from 0
    #[arg(long, value_name = "K", default_value_t = 0)]
    node_rank: usize,
    /// Where the ranks of several machines meet: the host of machine 0, and a free port there
    #[arg(long, value_name = "HOST:PORT")]
    rendezvous: Option<String>,
    /// The verb and its arguments
    #[arg(
        value_name = "VERB",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<OsString>,
}

impl LaunchVerb {
    pub fn run(self) -> Result<()> {
        let Self { ranks, nodes, node_rank, rendezvous, words } = self;
        let name = OsString::from("docre-pretrain");
        match Cli::try_parse_from(std::iter::once(&name).chain(&words)) {
            // Said once, and not by every rank.
            Err(answer) => {
                let _ = answer.print();
                super::leave(answer.exit_code() as u8)
            }
            Ok(Cli { verb: Verb::Launch(_) }) => {
                Err(Error::recipe("`launch` does not launch itself")
                    .with_hint("name the verb that the ranks should run"))
            }
            Ok(_) => Launch { ranks, nodes, node_rank, rendezvous, words }.run(),
        }
    }
}
