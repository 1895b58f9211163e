//! Where each document begins and ends in a packed token stream.
//!
//! Not for: what the tokens are (`text`).

use tch::{Device, Kind, Tensor};

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
        let rising = offsets.windows(2).all(|pair| pair[0] <= pair[1]);
        let fits = offsets.last().is_some_and(|&tokens| i32::try_from(tokens).is_ok());
        if offsets.first() != Some(&0) || !rising || !fits {
            return Err(Error::Bug(format!(
                "offsets of a packed stream must rise from 0 to at most {}, not {offsets:?}",
                i32::MAX
            )));
        }
        let host = Tensor::f_from_slice(offsets)?;
        let on_device = host.f_to_kind(Kind::Int)?.f_to_device(device)?;
        let longest = offsets.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        Ok(Self { offsets: offsets.to_owned(), host, device: on_device, longest })
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
