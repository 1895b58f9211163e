//! A world of one process: every collective is the identity.
//!
//! Not for tests of several ranks: those use `simulated`.

use tch::Tensor;

use super::{Communicator, ReduceOp};
use crate::{Error, Result};

/// The only rank.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleProcess;

impl Communicator for SingleProcess {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn all_reduce_f64(&self, _values: &mut [f64], _op: ReduceOp) -> Result<()> {
        Ok(())
    }

    fn all_reduce_tensor(&self, _tensor: &Tensor) -> Result<()> {
        Ok(())
    }

    fn broadcast(&self, root: usize, _bytes: &mut Vec<u8>) -> Result<()> {
        if root == 0 {
            Ok(())
        } else {
            Err(Error::Bug(format!("broadcast from rank {root} in a world of 1")))
        }
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes.to_vec()])
    }

    fn abort(&self, code: u8) -> ! {
        // SAFETY: a plain call. Destructors could wait for what hangs, so none runs.
        unsafe { libc::_exit(code.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectives_are_identities() {
        let mut values = [1.5, -2.0];
        SingleProcess.all_reduce_f64(&mut values, ReduceOp::Sum).unwrap();
        assert_eq!(values, [1.5, -2.0]);
        let tensor = Tensor::from_slice(&[1f32, 2.0]);
        SingleProcess.all_reduce_tensor(&tensor).unwrap();
        assert_eq!(Vec::<f32>::try_from(&tensor).unwrap(), [1.0, 2.0]);
        assert_eq!(SingleProcess.all_gather(b"word").unwrap(), [b"word".to_vec()]);
    }

    #[test]
    fn a_root_outside_the_world_is_a_bug() {
        assert_eq!(SingleProcess.broadcast(1, &mut Vec::new()).unwrap_err().exit_code(), 70);
    }
}
