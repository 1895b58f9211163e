//! The functions and tables of the C++ shim as Rust sees them. Status codes become errors here.
//!
//! Not for: safe functions. Each sibling module wraps the functions that it needs.

pub(super) mod c10d;

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::Result;

/// An `at::Generator` owned by the shim.
#[repr(C)]
pub(super) struct CGenerator {
    _private: [u8; 0],
}

/// A `c10::Stream` owned by the shim.
#[repr(C)]
pub(super) struct CStream {
    _private: [u8; 0],
}

/// Tables, numbers and choices that Rust and C++ share; build.rs makes them from `tables.hpp`.
pub(super) mod tables {
    use super::TableRow;

    include!(concat!(env!("OUT_DIR"), "/tables.rs"));
}

/// A row of a table that C++ reads, with columns in the order that it expects.
pub(super) trait TableRow<const COLUMNS: usize> {
    /// The numbers of the row.
    fn columns(&self) -> [i64; COLUMNS];
}

/// Rows as a tensor on the host; int64 [rows, columns].
pub(super) fn host_table<const COLUMNS: usize>(rows: &[impl TableRow<COLUMNS>]) -> Result<Tensor> {
    let numbers: Vec<i64> = rows.iter().flat_map(TableRow::columns).collect();
    Ok(Tensor::f_from_slice(&numbers)?.f_view([rows.len() as i64, COLUMNS as i64])?)
}

unsafe extern "C" {
    fn docre_last_error() -> *const c_char;
    pub(super) fn docre_attention(
        qkv: *const C_tensor,
        offsets: *const C_tensor,
        keys: *const C_tensor,
        salt: i64,
        p: f64,
        terms: *const *const C_tensor,
        window: i64,
        scale: f64,
        out: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_flash_attention(
        qkv: *const C_tensor,
        offsets: *const C_tensor,
        longest: i64,
        p: f64,
        window: i64,
        scale: f64,
        out: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_dropout(
        x: *const C_tensor,
        keys: *const C_tensor,
        salt: i64,
        p: f64,
        out: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_lstm(
        x: *const C_tensor,
        offsets: *const C_tensor,
        hidden: *const C_tensor,
        cell: *const C_tensor,
        weights: *const *const C_tensor,
        count: usize,
        out: *const *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_entity_rows(
        qkv: *const C_tensor,
        offsets: *const C_tensor,
        keys: *const C_tensor,
        salt: i64,
        p: f64,
        documents: *const C_tensor,
        rows: *const C_tensor,
        weights: *const C_tensor,
        windows: *const C_tensor,
        parts: *const C_tensor,
        terms: *const *const C_tensor,
        window: i64,
        scale: f64,
        out: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_contexts(
        states: *const C_tensor,
        attention: *const C_tensor,
        documents: *const C_tensor,
        pairs: *const C_tensor,
        heads: i64,
        scale: f64,
        epsilon: f64,
        out: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_span_sums(
        attention: *const C_tensor,
        tables: *const *const C_tensor,
        heads: i64,
        scale: f64,
        epsilon: f64,
        out: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_product(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        turned: c_int,
        out: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_half_product(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        turned: c_int,
        function: i64,
        out: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_half_linear(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        out: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_batched_product(
        x: *const C_tensor,
        y: *const C_tensor,
        turned: c_int,
        out: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_sum_norm(
        x: *const C_tensor,
        y: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        keys: *const C_tensor,
        salt: i64,
        p: f64,
        epsilon: f64,
        out: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_activation(x: *const C_tensor, kind: i64, out: *mut C_tensor) -> c_int;
    pub(super) fn docre_log_sum_exp(x: *const C_tensor, out: *mut C_tensor) -> c_int;
    pub(super) fn docre_relation_layer(
        weight: *const C_tensor,
        tails: *const C_tensor,
        score: *const C_tensor,
        by_tail: *mut C_tensor,
        matrix: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_grouped_bilinear(
        head: *const C_tensor,
        tail: *const C_tensor,
        weight: *const C_tensor,
        blocks: i64,
        out: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_set_grad(parameter: *mut C_tensor, grad: *const C_tensor) -> c_int;
    pub(super) fn docre_fused_adam(
        parameters: *const *const C_tensor,
        grads: *const *const C_tensor,
        means: *const *const C_tensor,
        squares: *const *const C_tensor,
        largest: *const *const C_tensor,
        steps: *const *const C_tensor,
        count: usize,
        divisor: *const C_tensor,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        decoupled: c_int,
        amsgrad: c_int,
    ) -> c_int;
    pub(super) fn docre_list_add(list: *const *const C_tensor, count: usize, number: f64) -> c_int;
    pub(super) fn docre_gather(
        to: *const *const C_tensor,
        from: *const *const C_tensor,
        count: usize,
    ) -> c_int;
    pub(super) fn docre_list_norm(
        list: *const *const C_tensor,
        count: usize,
        out: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_square_sum(flat: *const C_tensor, sum: *mut f64) -> c_int;
    pub(super) fn docre_hook_set(
        parameter: *mut C_tensor,
        call: extern "C" fn(*mut c_void) -> c_int,
        release: extern "C" fn(*mut c_void),
        context: *mut c_void,
    ) -> c_int;
    pub(super) fn docre_hook_clear(parameter: *mut C_tensor) -> c_int;
    #[cfg(test)]
    pub(super) fn docre_local_threads(threads: c_int);
    #[cfg(test)]
    pub(super) fn docre_mock_gpu_install();
    #[cfg(test)]
    pub(super) fn docre_mock_gpu_take() -> *const c_char;
    #[cfg(test)]
    fn docre_second_scratch() -> c_int;
    #[cfg(test)]
    fn docre_overdrawn_scratch() -> c_int;
    pub(super) fn docre_generator_new(seed: u64, out: *mut *mut CGenerator) -> c_int;
    pub(super) fn docre_generator_free(generator: *mut CGenerator);
    pub(super) fn docre_generator_draw(
        generator: *mut CGenerator,
        shape: *const i64,
        dimensions: usize,
        normal: c_int,
        from: f64,
        to: f64,
        out: *mut C_tensor,
    ) -> c_int;
    pub(super) fn docre_cuda_set_device(index: i64) -> c_int;
    pub(super) fn docre_upload(host: *const C_tensor, index: i64, out: *mut C_tensor) -> c_int;
    pub(super) fn docre_gpu_products(tf32: c_int) -> c_int;
    pub(super) fn docre_exact_gpu_recurrence() -> c_int;
    #[cfg(test)]
    pub(super) fn docre_gpu_products_are_tf32(tf32: *mut c_int) -> c_int;
    #[cfg(test)]
    pub(super) fn docre_gpu_recurrence_is_tf32(tf32: *mut c_int) -> c_int;
    pub(super) fn docre_cuda_memory_bytes(index: i64, current: *mut i64, peak: *mut i64) -> c_int;
    pub(super) fn docre_stream_new(index: i64, out: *mut *mut CStream) -> c_int;
    pub(super) fn docre_stream_free(stream: *mut CStream);
    pub(super) fn docre_stream_handle(stream: *const CStream, handle: *mut *mut c_void) -> c_int;
    pub(super) fn docre_stream_wait_current(stream: *const CStream) -> c_int;
    pub(super) fn docre_stream_current_waits(stream: *const CStream) -> c_int;
}

/// Turns a status code of the shim into a result. An error carries the message of the shim.
pub(super) fn check(status: c_int) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the pointer is to a thread-local string of the shim that lives until the next failure
    // on this thread.
    let message = unsafe { CStr::from_ptr(docre_last_error()) }.to_string_lossy().into_owned();
    Err(TchError::Torch(message).into())
}

/// A new tensor that the shim fills.
pub(super) fn produce(fill: impl FnOnce(*mut C_tensor) -> c_int) -> Result<Tensor> {
    let mut out = Tensor::new();
    check(fill(out.as_mut_ptr()))?;
    Ok(out)
}

/// The pointer to a tensor, or null if there is none.
pub(super) fn pointer(tensor: Option<&Tensor>) -> *const C_tensor {
    tensor.map_or(std::ptr::null(), Tensor::as_ptr)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn offsets_and_functions_that_do_not_exist_are_refused() {
        let qkv = Tensor::zeros([8, 3, 1, 4], (Kind::Float, Device::Cpu));
        let attention = |offsets: &Tensor| {
            // SAFETY: all pointers are to live tensors, or null where the shim allows it.
            produce(|out| unsafe {
                let (keys, none) = (std::ptr::null(), [std::ptr::null(); 5]);
                let (qkv, offsets) = (qkv.as_ptr(), offsets.as_ptr());
                docre_attention(qkv, offsets, keys, 0, 0.0, none.as_ptr(), -1, 0.5, out)
            })
        };
        assert!(attention(&Tensor::from_slice(&[0i64, 5, 5, 8])).is_ok());
        for wrong in [&[0i64, 5, 3, 8][..], &[0, 9, 8], &[0, -1, 8], &[1, 8], &[0, 7], &[0, 9], &[]]
        {
            let error = attention(&Tensor::from_slice(wrong)).unwrap_err().to_string();
            assert!(error.contains("attention: the offsets "), "{wrong:?}: {error}");
        }
        assert!(attention(&Tensor::from_slice(&[0i32, 8])).is_err());
        for wrong in [-1, 4] {
            // SAFETY: both pointers are to live tensors.
            let error = produce(|out| unsafe { docre_activation(qkv.as_ptr(), wrong, out) })
                .unwrap_err()
                .to_string();
            assert!(error.contains("is not known"), "{error}");
        }
    }

    #[test]
    fn products_of_nothing_are_empty_or_zero() {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        let ones = |shape: &[i64]| zeros(shape).fill_(1.0).set_requires_grad(true);
        let product = |x: &Tensor, weight: &Tensor| {
            // SAFETY: all pointers are to live tensors, or null where the shim allows it.
            produce(|out| unsafe {
                docre_product(x.as_ptr(), weight.as_ptr(), std::ptr::null(), 1, out)
            })
            .unwrap()
        };
        let (x, weight) = (ones(&[3, 4]), ones(&[0, 4]));
        let out = product(&x, &weight);
        assert_eq!(out.size(), [3, 0]);
        out.sum(Kind::Float).backward();
        assert_eq!((x.grad(), weight.grad()), (zeros(&[3, 4]), zeros(&[0, 4])));
        let (x, y) = (ones(&[2, 3, 0]), ones(&[2, 0, 5]));
        // SAFETY: all pointers are to live tensors.
        let out = produce(|out| unsafe { docre_batched_product(x.as_ptr(), y.as_ptr(), 0, out) })
            .unwrap();
        assert_eq!(out, zeros(&[2, 3, 5]));
    }

    #[test]
    fn a_thread_has_one_scratch_of_a_fixed_size_at_a_time() {
        for _ in 0..2 {
            // SAFETY: plain calls.
            let second = check(unsafe { docre_second_scratch() }).unwrap_err().to_string();
            assert!(second.contains("this thread's memory is already in use"), "{second}");
            // The first one was given back all the same.
            let overdrawn = check(unsafe { docre_overdrawn_scratch() }).unwrap_err().to_string();
            assert!(overdrawn.contains("1048576 floats were asked for"), "{overdrawn}");
        }
    }
}
