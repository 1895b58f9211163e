//! Host values on a device: one by one, or many tables in one copy.
//!
//! A copy to a GPU starts from pinned memory, so that the host does not wait for what the GPU still
//! computes.

use tch::kind::Element;
use tch::{Device, Kind, Tensor};

use super::shim::{docre_upload, produce};
use crate::Result;

/// Host values as a tensor on `device`.
///
/// # Errors
/// If libtorch rejects the copy.
pub fn on<T: Element>(values: &[T], device: Device) -> Result<Tensor> {
    let host = Tensor::f_from_slice(values)?;
    match device {
        // SAFETY: the pointer is to a live tensor.
        Device::Cuda(index) => produce(|out| unsafe {
            docre_upload(host.as_ptr(), i64::try_from(index).unwrap_or(i64::MAX), out)
        }),
        _ => Ok(host.f_to_device(device)?),
    }
}

/// Tables of whole numbers that reach a device in one copy; host data, so that the thread that
/// prepares batches can fill it.
#[derive(Clone, Debug, Default)]
pub struct Arena {
    numbers: Vec<i64>,
}

/// The place of a table in its [`Arena`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    first: i64,
    count: i64,
}

impl Arena {
    /// Appends a table.
    pub fn add(&mut self, values: &[i64]) -> Table {
        let first = self.numbers.len() as i64;
        self.numbers.extend_from_slice(values);
        Table { first, count: values.len() as i64 }
    }

    /// The tables on `device`.
    ///
    /// # Errors
    /// If libtorch rejects the copy.
    pub fn upload(&self, device: Device) -> Result<Uploaded> {
        Ok(Uploaded { numbers: on(&self.numbers, device)? })
    }
}

/// The tables of an [`Arena`] on a device.
#[derive(Debug)]
pub struct Uploaded {
    numbers: Tensor,
}

impl Uploaded {
    /// A table; int64 `[n]`.
    ///
    /// # Errors
    /// If it is not of this arena.
    pub fn table(&self, table: Table) -> Result<Tensor> {
        Ok(self.numbers.f_narrow(0, table.first, table.count)?)
    }

    /// The same in 32 bits; int32 `[n]`.
    ///
    /// # Errors
    /// If it is not of this arena.
    pub fn table_of_32_bits(&self, table: Table) -> Result<Tensor> {
        Ok(self.table(table)?.f_to_kind(Kind::Int)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_come_back_as_they_were() {
        let mut arena = Arena::default();
        let tables = [&[3i64, -1][..], &[], &[7]].map(|values| (values, arena.add(values)));
        let uploaded = arena.upload(Device::Cpu).unwrap();
        for (values, table) in tables {
            assert_eq!(Vec::<i64>::try_from(uploaded.table(table).unwrap()).unwrap(), values);
            let narrow = uploaded.table_of_32_bits(table).unwrap();
            assert_eq!((narrow.kind(), narrow.numel()), (Kind::Int, values.len()));
        }
        let beyond = Table { first: 2, count: 2 };
        assert!(uploaded.table(beyond).is_err());
    }
}
