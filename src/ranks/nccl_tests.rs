//! The NCCL communicator over a library of this file, which follows `nccl.h` on the memory of the
//! host: what is called, how often and in which order, and what becomes of its errors. Devices and
//! streams it cannot show.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use tch::{Kind, Tensor};

use super::c10d_tests::world_of_threads;
use super::failure::Watchdog;
use super::nccl_library::{NcclLibrary, RawComm, UniqueId};
use super::{
    CommunicationStream, Communicator, GradientReducer, NcclCommunicator, SingleProcess,
    simulated_world,
};
use crate::Result;

/// A library of the functions below.
fn library() -> NcclLibrary {
    NcclLibrary {
        version: 22_809,
        get_unique_id: id,
        comm_init_rank: init,
        all_reduce,
        comm_destroy: destroy,
        comm_abort: abort,
        comm_get_async_error: state,
        get_error_string: text,
        _library: None,
    }
}

/// Ranks of one communicator meet here, reduction after reduction.
#[derive(Default)]
struct Meeting {
    round: Mutex<Round>,
    changed: Condvar,
}

#[derive(Default)]
struct Round {
    number: usize,
    brought: Vec<Vec<f32>>,
    sum: Vec<f32>,
}

/// What a `ncclComm_t` of this file points to.
struct Member {
    size: usize,
    meeting: Arc<Meeting>,
    state: AtomicI32,
}

static MEETINGS: Mutex<Option<HashMap<u8, Arc<Meeting>>>> = Mutex::new(None);
static IDS: AtomicUsize = AtomicUsize::new(1);
static DESTROYED: AtomicUsize = AtomicUsize::new(0);

/// `ncclInvalidUsage`, for a world of more ranks than this.
const MOST: c_int = 7;

unsafe extern "C" fn id(id: *mut UniqueId) -> c_int {
    let mut bytes = [0; 128];
    bytes[0] = IDS.fetch_add(1, Ordering::SeqCst) as u8;
    // SAFETY: the caller gives room for one id.
    unsafe { *id = UniqueId(bytes) };
    0
}

unsafe extern "C" fn init(comm: *mut RawComm, size: c_int, id: UniqueId, _rank: c_int) -> c_int {
    if size > MOST {
        return 5;
    }
    let meeting =
        MEETINGS.lock().unwrap().get_or_insert_default().entry(id.0[0]).or_default().clone();
    let member = Box::new(Member { size: size as usize, meeting, state: AtomicI32::new(0) });
    // SAFETY: the caller gives room for one handle.
    unsafe { *comm = Box::into_raw(member).cast() };
    0
}

unsafe extern "C" fn all_reduce(
    from: *const c_void,
    to: *mut c_void,
    count: usize,
    kind: c_int,
    op: c_int,
    comm: RawComm,
    _stream: *mut c_void,
) -> c_int {
    if kind != 7 || op != 0 {
        return 4;
    }
    // SAFETY: the handle is one of `init`; both pointers are to `count` floats.
    let (member, own) =
        unsafe { (&*comm.cast::<Member>(), std::slice::from_raw_parts(from.cast::<f32>(), count)) };
    let mut round = member.meeting.round.lock().unwrap();
    let number = round.number;
    round.brought.push(own.to_vec());
    if round.brought.len() == member.size {
        let brought = std::mem::take(&mut round.brought);
        round.sum =
            (0..count).map(|index| brought.iter().map(|values| values[index]).sum()).collect();
        round.number += 1;
        member.meeting.changed.notify_all();
    }
    let round = member.meeting.changed.wait_while(round, |round| round.number == number).unwrap();
    // SAFETY: as above.
    unsafe { std::ptr::copy_nonoverlapping(round.sum.as_ptr(), to.cast::<f32>(), count) };
    0
}

unsafe extern "C" fn destroy(comm: RawComm) -> c_int {
    // SAFETY: made by `init`, and destroyed once.
    drop(unsafe { Box::from_raw(comm.cast::<Member>()) });
    DESTROYED.fetch_add(1, Ordering::SeqCst);
    0
}

unsafe extern "C" fn abort(_comm: RawComm) -> c_int {
    0
}

unsafe extern "C" fn state(comm: RawComm, state: *mut c_int) -> c_int {
    // SAFETY: the handle is one of `init`; the caller gives room for a number.
    unsafe { *state = (*comm.cast::<Member>()).state.load(Ordering::SeqCst) };
    0
}

unsafe extern "C" fn text(code: c_int) -> *const c_char {
    const TEXTS: [(c_int, &CStr); 3] =
        [(4, c"invalid argument"), (5, c"invalid usage"), (6, c"remote process exited")];
    TEXTS.iter().find(|(known, _)| *known == code).map_or(c"unknown", |(_, text)| text).as_ptr()
}

/// Counts what is asked of a stream.
#[derive(Default)]
struct Stream {
    waits: AtomicUsize,
    joins: AtomicUsize,
}

impl CommunicationStream for Stream {
    fn handle(&self) -> *mut c_void {
        std::ptr::null_mut()
    }

    fn serves(&self, tensor: &Tensor) -> bool {
        tensor.kind() == Kind::Float
    }

    fn wait_for_compute(&self) -> Result<()> {
        self.waits.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn compute_waits(&self) -> Result<()> {
        self.joins.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn connect(control: Arc<dyn Communicator>) -> Result<(Arc<NcclCommunicator>, Arc<Stream>)> {
    let stream = Arc::new(Stream::default());
    Ok((Arc::new(NcclCommunicator::connect(control, library(), stream.clone())?), stream))
}

/// Two steps of gradient buckets through hooks, as in training; returns the sums.
fn two_steps(comm: &Arc<dyn Communicator>) -> Vec<Vec<f32>> {
    let rank = comm.rank() as f64;
    let buckets: Vec<Tensor> = [3, 1]
        .map(|length| Tensor::full([length], rank + 1.0, (Kind::Float, tch::Device::Cpu)))
        .into();
    let reducer = GradientReducer::new(
        comm,
        &Watchdog::asleep(),
        buckets.iter().map(Tensor::shallow_clone).collect(),
        vec![0, 1],
        Kind::Float,
    )
    .unwrap();
    for _ in 0..2 {
        reducer.arm().unwrap();
        [1, 0].into_iter().for_each(|parameter| reducer.ready(parameter));
        reducer.finish().unwrap();
    }
    buckets.iter().map(|bucket| Vec::try_from(bucket).unwrap()).collect()
}

#[test]
fn gradients_travel_over_nccl_and_everything_else_over_the_control() {
    travel(simulated_world(3).into_iter().map(|control| Arc::new(control) as _).collect());
    travel(world_of_threads(3));
}

fn travel(controls: Vec<Arc<dyn Communicator>>) {
    let sums: Vec<_> = thread::scope(|scope| {
        let rank = |control| {
            scope.spawn(move || {
                let (comm, stream) = connect(control).unwrap();
                let sums = two_steps(&(comm.clone() as Arc<dyn Communicator>));
                assert_eq!(
                    (stream.waits.load(Ordering::SeqCst), stream.joins.load(Ordering::SeqCst)),
                    (4, 2),
                    "two buckets, two steps"
                );
                let double = Tensor::from_slice(&[comm.rank() as f64]);
                comm.all_reduce_tensor(&double).unwrap();
                assert_eq!(
                    f64::try_from(&double).unwrap(),
                    3.0,
                    "what the stream does not serve goes another way"
                );
                assert_eq!(comm.all_gather(&[7]).unwrap().len(), 3);
                sums
            })
        };
        let ranks: Vec<_> = controls.into_iter().map(rank).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    // 1 + 2 + 3, and then three times that.
    assert!(sums.iter().all(|sums| *sums == [vec![18.0; 3], vec![18.0]]), "{sums:?}");
}

#[test]
fn one_process_goes_the_same_way_and_closes_once() {
    let (comm, stream) = connect(Arc::new(SingleProcess)).unwrap();
    assert_eq!(two_steps(&(comm.clone() as Arc<dyn Communicator>)), [vec![1.0; 3], vec![1.0]]);
    assert_eq!(stream.waits.load(Ordering::SeqCst), 4, "the buckets were handed to NCCL");
    let before = DESTROYED.load(Ordering::SeqCst);
    assert!(comm.close(None) && comm.close(None));
    assert_eq!(DESTROYED.load(Ordering::SeqCst), before + 1);
    assert!(comm.check().is_ok(), "a watchdog that looks once more finds nothing");
    assert_eq!(comm.all_reduce_tensor(&Tensor::from_slice(&[1f32])).unwrap_err().exit_code(), 70);
}

#[test]
fn errors_name_rank_operation_and_what_the_library_says() {
    let (comm, _) = connect(Arc::new(SingleProcess)).unwrap();
    assert!(comm.check().is_ok());
    // SAFETY: the handle of this communicator, which is open.
    unsafe { &*comm.raw().unwrap().cast::<Member>() }.state.store(6, Ordering::SeqCst);
    for error in [comm.check().unwrap_err(), comm.join().unwrap_err()] {
        assert_eq!(error.exit_code(), 71);
        assert_eq!(
            error.to_string(),
            "rank 0 was lost during an NCCL collective: remote process exited"
        );
    }
    let errors: Vec<_> = thread::scope(|scope| {
        let rank =
            |control| scope.spawn(move || connect(Arc::new(control)).err().unwrap().to_string());
        let ranks: Vec<_> = simulated_world(8).into_iter().map(rank).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    });
    assert_eq!(errors[5], "rank 5 was lost during connecting NCCL: invalid usage");
}
