//! The functions of `c10d.cpp` as Rust sees them.
//!
//! Not for: safe functions. `torch::c10d` wraps them.

use std::ffi::{c_char, c_int, c_void};

/// A store of keys, owned by the shim.
#[repr(C)]
pub(in crate::torch) struct CKeyStore {
    _private: [u8; 0],
}

/// A process group, owned by the shim.
#[repr(C)]
pub(in crate::torch) struct CGlooGroup {
    _private: [u8; 0],
}

unsafe extern "C" {
    pub(in crate::torch) fn docre_store_new(
        host: *const c_char,
        port: u16,
        listener: c_int,
        prefix: *const c_char,
        timeout_ms: i64,
        out: *mut *mut CKeyStore,
    ) -> c_int;
    pub(in crate::torch) fn docre_store_free(store: *mut CKeyStore);
    pub(in crate::torch) fn docre_store_set(
        store: *mut CKeyStore,
        key: *const c_char,
        data: *const u8,
        count: usize,
    ) -> c_int;
    pub(in crate::torch) fn docre_store_add(
        store: *mut CKeyStore,
        key: *const c_char,
        value: i64,
        sum: *mut i64,
    ) -> c_int;
    pub(in crate::torch) fn docre_store_has(
        store: *mut CKeyStore,
        key: *const c_char,
        found: *mut c_int,
    ) -> c_int;
    pub(in crate::torch) fn docre_store_get(
        store: *mut CKeyStore,
        key: *const c_char,
        timeout_ms: i64,
        take: extern "C" fn(*mut c_void, *const u8, usize),
        taker: *mut c_void,
    ) -> c_int;
    pub(in crate::torch) fn docre_group_new(
        store: *mut CKeyStore,
        name: *const c_char,
        rank: c_int,
        size: c_int,
        address: *const c_char,
        connect_ms: i64,
        timeout_ms: i64,
        out: *mut *mut CGlooGroup,
    ) -> c_int;
    pub(in crate::torch) fn docre_group_free(group: *mut CGlooGroup);
    pub(in crate::torch) fn docre_group_sum(
        group: *mut CGlooGroup,
        data: *mut c_void,
        count: i64,
        wide: c_int,
    ) -> c_int;
    pub(in crate::torch) fn docre_group_barrier(group: *mut CGlooGroup) -> c_int;
    pub(in crate::torch) fn docre_group_broadcast(
        group: *mut CGlooGroup,
        data: *mut u8,
        count: i64,
        root: c_int,
    ) -> c_int;
    pub(in crate::torch) fn docre_group_gather(
        group: *mut CGlooGroup,
        own: *const u8,
        count: i64,
        all: *mut u8,
    ) -> c_int;
}
