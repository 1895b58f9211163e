//! Where each document begins and ends in a packed token stream.
//!
//! Not for: what the tokens are (`text`).

use tch::{Device, Kind, Tensor};

use crate::torch::on;
use crate::{Error, Result};

/// The documents of a packed stream: document *i* holds tokens `offsets[i]..offsets[i + 1]`.
#[derive(Debug)]
pub struct Segments {
    /// The cumulative lengths, on the host.
    pub offsets: Vec<i64>,
    /// The same as an int64 tensor on the host, as the CPU kernel reads it.
    pub host: Tensor,
    /// The same as an int32 tensor on the device.
    pub device: Tensor,
    /// Tokens of the longest document.
    pub longest: i64,
}

impl Segments {
    /// From cumulative lengths: `offsets` starts with 0, never falls, and ends with the number of
    /// tokens.
    ///
    /// # Errors
    /// [`Error::Bug`] if `offsets` is not of that form or does not fit 31 bits (the kernels' index
    /// type).
    pub fn new(offsets: &[i64], device: Device) -> Result<Self> {
        Self::over(offsets, |host| match device {
            Device::Cpu => Ok(host.f_to_kind(Kind::Int)?),
            _ => on(&offsets.iter().map(|&offset| offset as i32).collect::<Vec<_>>(), device),
        })
    }

    /// The same with `offsets` that reached the device before; int32.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn uploaded(offsets: &[i64], device: Tensor) -> Result<Self> {
        Self::over(offsets, |_| Ok(device))
    }

    fn over(offsets: &[i64], device: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let rising = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
        let fits = offsets.last().is_some_and(|&tokens| i32::try_from(tokens).is_ok());
        if offsets.first() != Some(&0) || !rising || !fits {
            return Err(Error::Bug(format!(
                "offsets of a packed stream must rise from 0 to at most {}, not {offsets:?}",
                i32::MAX
            )));
        }
        let host = Tensor::f_from_slice(offsets)?;
        let device = device(&host)?;
        let longest = offsets.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        Ok(Self { offsets: offsets.to_owned(), host, device, longest })
    }

    /// For each token the number of its document and the row where that begins.
    pub fn of_tokens(&self) -> impl Iterator<Item = (i64, i64)> {
        let documents = (0..).zip(self.offsets.windows(2));
        documents.flat_map(|(index, span)| (span[0]..span[1]).map(move |_| (index, span[0])))
    }

    /// Number of tokens in the stream.
    pub fn tokens(&self) -> i64 {
        self.offsets.last().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_documents_and_tokens() {
        let segments = Segments::new(&[0, 3, 3, 10], Device::Cpu).unwrap();
        assert_eq!((segments.tokens(), segments.longest), (10, 7));
        assert_eq!(
            Vec::<i64>::try_from(segments.device.to_kind(Kind::Int64)).unwrap(),
            [0, 3, 3, 10]
        );
        assert_eq!(Segments::new(&[0], Device::Cpu).unwrap().tokens(), 0);
    }

    #[test]
    fn refuses_offsets_that_fall_or_start_late() {
        for offsets in [&[][..], &[1, 2], &[0, 5, 4], &[0, 1 << 40]] {
            assert!(Segments::new(offsets, Device::Cpu).is_err(), "{offsets:?}");
        }
    }
}
