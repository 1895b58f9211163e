//! Which launcher started this process, and how many others, by environment variables.
//!
//! It chooses the communicator and catches a wrong launcher, which would make N worlds of size 1
//! that silently train the same model N times. Not for communicating.

use crate::{Error, Result};

/// Set by [`Launch`](super::Launch) for the ranks that it starts.
pub(super) const LAUNCHED: &str = "DOCRE_LAUNCHED";

/// What started the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// A plain command line.
    None,
    /// Open MPI's `mpirun`.
    OpenMpi,
    /// The process manager interface of MPICH's `mpiexec` (Hydra).
    Mpich,
    /// Slurm's `srun`.
    Slurm,
    /// `torchrun`, or a job controller with its variables.
    Torchrun,
    /// This program's own `launch`.
    Launch,
}

/// What the launcher says about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Number of processes started together.
    pub world_size: usize,
    /// This process among them, from 0.
    pub rank: usize,
    /// This process among those of its machine, from 0: the index of its GPU.
    pub local_rank: usize,
    /// What started it.
    pub kind: Launcher,
}

impl Launcher {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// A recipe error (64) if a launcher's variable is not a number.
    pub fn detect() -> Result<Launched> {
        Self::detect_in(|name| std::env::var(name).ok())
    }

    /// As [`detect`](Self::detect), with the variables that `lookup` returns.
    fn detect_in(lookup: impl Fn(&str) -> Option<String>) -> Result<Launched> {
        let kind = Self::recognise(&lookup);
        let Some([size, rank, local]) = kind.variables() else {
            return Ok(Launched { world_size: 1, rank: 0, local_rank: 0, kind });
        };
        let number = |names: &[&str]| {
            names.iter().find_map(|name| Some(parse(name, &lookup(name)?))).transpose()
        };
        let found = Launched {
            world_size: number(size)?.unwrap_or(1),
            rank: number(rank)?.unwrap_or(0),
            local_rank: number(local)?.unwrap_or(0),
            kind,
        };
        if found.rank >= found.world_size {
            let Launched { world_size, rank, .. } = found;
            return Err(Error::recipe(format!(
                "{}: rank {rank} in a world of {world_size}",
                kind.name()
            )));
        }
        Ok(found)
    }

    fn recognise(lookup: &impl Fn(&str) -> Option<String>) -> Self {
        let has = |name| lookup(name).is_some();
        // A batch script has SLURM_NTASKS and SLURM_PROCID too, but it is not a launch. Only a step
        // with a process manager counts, or one with several tasks.
        let managed = Self::is_managed(lookup);
        let several = lookup("SLURM_STEP_NUM_TASKS").is_some_and(|tasks| tasks != "1");
        if has(LAUNCHED) {
            Self::Launch
        } else if has("OMPI_COMM_WORLD_SIZE") {
            Self::OpenMpi
        } else if has("TORCHELASTIC_RUN_ID") && has("WORLD_SIZE") && has("RANK") {
            // It may have been started by srun itself, once a machine.
            Self::Torchrun
        } else if has("SLURM_STEP_ID") && (managed || several) {
            Self::Slurm
        } else if has("PMI_SIZE") && has("PMI_RANK") {
            Self::Mpich
        } else if has("WORLD_SIZE") && has("RANK") {
            Self::Torchrun
        } else {
            Self::None
        }
    }

    /// Whether there is a process manager, with which MPI makes a world.
    pub(super) fn is_managed(lookup: &impl Fn(&str) -> Option<String>) -> bool {
        ["PMIX_RANK", "PMIX_NAMESPACE", "PMI_RANK", "PMI_FD"]
            .into_iter()
            .any(|name| lookup(name).is_some())
    }

    /// The variables of world size, rank and local rank, the most reliable ones first.
    fn variables(self) -> Option<[&'static [&'static str]; 3]> {
        Some(match self {
            Self::None => return None,
            Self::OpenMpi => [
                &["OMPI_COMM_WORLD_SIZE"],
                &["OMPI_COMM_WORLD_RANK"],
                &["OMPI_COMM_WORLD_LOCAL_RANK"],
            ],
            Self::Mpich => [&["PMI_SIZE"], &["PMI_RANK"], &["MPI_LOCALRANKID", "PMI_LOCAL_RANK"]],
            Self::Slurm => {
                [&["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"], &["SLURM_PROCID"], &["SLURM_LOCALID"]]
            }
            Self::Torchrun | Self::Launch => [&["WORLD_SIZE"], &["RANK"], &["LOCAL_RANK"]],
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "no launcher",
            Self::OpenMpi => "Open MPI's mpirun",
            Self::Mpich => "a PMI launcher such as MPICH's mpiexec",
            Self::Slurm => "srun",
            Self::Torchrun => "torchrun (WORLD_SIZE and RANK are set)",
            Self::Launch => "docre-pretrain launch",
        }
    }

    #[cfg(any(test, feature = "mpi"))]
    fn way_out(self) -> &'static str {
        match self {
            Self::Slurm => {
                "use `srun --mpi=pmix`, with the MPI library this program was built with, or set \
                 DOCRE_WORLD=c10d to do without MPI; in an interactive shell of srun, start \
                 `mpirun`, or unset SLURM_STEP_ID and SLURM_STEP_NUM_TASKS for a single process"
            }
            Self::Torchrun => {
                "set DOCRE_WORLD=c10d, or unset it: torchrun makes no MPI world; or start with \
                 `mpirun -n N` or `srun --mpi=pmix`"
            }
            _ => {
                "start with the `mpirun` of the MPI library this program was built with (`ldd` on \
                 the program names it), or with `docre-pretrain launch`, which needs no MPI"
            }
        }
    }
}

impl Launched {
    /// Compares the size of the world that was reached with the launcher's.
    ///
    /// # Errors
    /// A recipe error (64) that names both sizes and the launcher.
    #[cfg(any(test, feature = "mpi"))]
    pub fn assert_world_size(&self, reached: usize) -> Result<()> {
        if reached == self.world_size {
            return Ok(());
        }
        let (launcher, told) = (self.kind.name(), self.world_size);
        let message =
            format!("{launcher} started {told} processes, but this one sees a world of {reached}");
        Err(Error::recipe(message).with_hint(self.kind.way_out()))
    }

    /// The error for a launch of several processes whose world cannot be reached.
    pub(super) fn cannot_join(&self, cause: &str, hint: &str) -> Error {
        Error::recipe(format!(
            "{} started {} processes, but {cause}",
            self.kind.name(),
            self.world_size
        ))
        .with_hint(hint)
    }
}

fn parse(name: &str, value: &str) -> Result<usize> {
    value.trim().parse().map_err(|_| {
        Error::recipe(format!("environment variable {name} is `{value}`, not a number"))
            .with_hint("unset it, or start with mpirun")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &[(&str, &str)]) -> Result<Launched> {
        Launcher::detect_in(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn place(world_size: usize, rank: usize, local_rank: usize, kind: Launcher) -> Launched {
        Launched { world_size, rank, local_rank, kind }
    }

    #[test]
    fn a_plain_command_line_is_a_world_of_one() {
        assert_eq!(detect(&[("PATH", "/bin")]).unwrap(), place(1, 0, 0, Launcher::None));
    }

    #[test]
    fn open_mpi_wins_inside_a_slurm_job() {
        let variables = [
            ("SLURM_STEP_ID", "0"),
            ("SLURM_NTASKS", "16"),
            ("SLURM_PROCID", "0"),
            ("PMIX_RANK", "5"),
            ("OMPI_COMM_WORLD_SIZE", "8"),
            ("OMPI_COMM_WORLD_RANK", "5"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
        ];
        assert_eq!(detect(&variables).unwrap(), place(8, 5, 1, Launcher::OpenMpi));
    }

    #[test]
    fn a_batch_script_is_no_launch() {
        let variables = [
            ("SLURM_JOB_ID", "7"),
            ("SLURM_NTASKS", "4"),
            ("SLURM_PROCID", "0"),
            ("SLURM_LOCALID", "0"),
        ];
        assert_eq!(detect(&variables).unwrap(), place(1, 0, 0, Launcher::None));
    }

    #[test]
    fn srun_is_recognised_with_and_without_a_process_manager() {
        let step = [
            ("SLURM_STEP_ID", "0"),
            ("SLURM_STEP_NUM_TASKS", "4"),
            ("SLURM_PROCID", "3"),
            ("SLURM_LOCALID", "1"),
        ];
        assert_eq!(detect(&step).unwrap(), place(4, 3, 1, Launcher::Slurm));
        let pmi2 = [
            ("SLURM_STEP_ID", "0"),
            ("SLURM_NTASKS", "2"),
            ("SLURM_PROCID", "1"),
            ("PMI_RANK", "1"),
            ("PMI_SIZE", "2"),
        ];
        assert_eq!(detect(&pmi2).unwrap(), place(2, 1, 0, Launcher::Slurm));
        let shell = [("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_PROCID", "0")];
        assert_eq!(detect(&shell).unwrap().kind, Launcher::None);
    }

    #[test]
    fn mpich_and_torchrun() {
        assert_eq!(
            detect(&[("PMI_SIZE", "2"), ("PMI_RANK", "1")]).unwrap(),
            place(2, 1, 0, Launcher::Mpich)
        );
        let torchrun = [("WORLD_SIZE", "4"), ("RANK", "2"), ("LOCAL_RANK", "2")];
        assert_eq!(detect(&torchrun).unwrap(), place(4, 2, 2, Launcher::Torchrun));
    }

    #[test]
    fn nonsense_is_named() {
        let error = detect(&[("PMI_SIZE", "two"), ("PMI_RANK", "1")]).unwrap_err();
        assert_eq!(error.exit_code(), 64);
        assert!(error.to_string().contains("PMI_SIZE is `two`"), "{error}");
        assert_eq!(detect(&[("PMI_SIZE", "2"), ("PMI_RANK", "2")]).unwrap_err().exit_code(), 64);
    }

    #[test]
    fn a_wrong_launcher_is_caught() {
        let launched = place(4, 1, 1, Launcher::Slurm);
        assert!(launched.assert_world_size(4).is_ok());
        let error = launched.assert_world_size(1).unwrap_err();
        assert_eq!(error.to_string(), "srun started 4 processes, but this one sees a world of 1");
        let hint = error.hint().unwrap();
        let ways = ["--mpi=pmix", "interactive shell", "unset SLURM_STEP_ID", "single process"];
        ways.iter().for_each(|way| assert!(hint.contains(way), "{hint}"));
    }
}
