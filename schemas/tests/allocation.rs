//! No body makes a decoder take more memory than the limits allow, whatever it claims.
//!
//! A counting allocator serves this test binary alone. It counts per thread, so that the test
//! runner's own threads do not disturb it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use inferq_schemas::{
    ContentType, DataType, Dim, Failure, InferRequest, InferResponse, JobHeaders, JobId, Limits,
    ReplyPrefixes, TensorSpec,
};
use proptest::collection::vec;
use proptest::prelude::*;

thread_local! {
    /// Bytes this thread holds, and the most it held since it was last asked.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

struct Counting;

fn count(bytes: isize) {
    // A thread that is about to end has no counter, and nothing that we measure.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        let now = now + bytes;
        held.set((now, most.max(now)));
    });
}

#[expect(
    unsafe_code,
    reason = "an allocator cannot be written without; this one only counts"
)]
// SAFETY: every call goes to the system's allocator unchanged, which keeps the contract. Counting
// takes no memory: the counter is constant-initialized and has nothing to drop.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that were held at once during `work`, beyond those held before.
fn most_held(work: impl FnOnce()) -> usize {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    work();
    HELD.with(|held| held.get().1 - before).unsigned_abs()
}

/// Small limits, so that a bound broken by little shows.
fn limits() -> Limits {
    Limits {
        max_body_bytes: 64 << 10,
        max_tensors: 8,
        max_elements: 1 << 20,
        max_parameters: 8,
        max_values: 1 << 12,
        ..Limits::default()
    }
}

/// What a decoder may hold for a body of `bytes`.
///
/// - 5 for each byte of the body: `0,` may become an element of 8 bytes; text may be copied.
/// - 64 for each value of rows and columns: 32, in lists that double as they grow.
/// - 160 KiB for what is bounded by number: members of objects, CBOR items, depth, messages.
fn allowed(bytes: usize) -> usize {
    5 * bytes + 64 * limits().max_values + (160 << 10)
}

fn model() -> Vec<TensorSpec> {
    vec![TensorSpec {
        name: "x".to_owned(),
        datatype: DataType::Fp64,
        shape: vec![Dim::Any, Dim::Any],
    }]
}

/// Decodes a body in every way and gives the most that was held at once.
fn decode(body: &Bytes) -> usize {
    let limits = limits();
    let model = model();
    most_held(|| {
        for kind in [ContentType::Json, ContentType::Cbor] {
            if let Ok(decoded) = InferRequest::decode(body, Some(kind), &limits) {
                let _ = decoded.request.into_tensors(&model, &limits);
            }
            let _ = InferResponse::decode(body, kind, &limits);
            let _ = Failure::from_body(body, kind);
        }
    })
}

/// `start`, then `piece` as often as told, then `end`.
fn repeated(start: &str, piece: &str, times: usize, end: &str) -> Bytes {
    [start, &piece.repeat(times), end].concat().into()
}

/// Bodies within the limits, each with as much of something as they allow.
fn full() -> Vec<Bytes> {
    let limits = limits();
    let values = limits.max_values - 2;
    let data = (limits.max_body_bytes - 200) / 2;
    let tensor = |datatype: &str, data: &str, times: usize| {
        let start = format!(
            r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[{}],"data":["#,
            times + 1
        );
        repeated(&start, &format!("{data},"), times, &format!("{data}]}}]}}"))
    };
    vec![
        repeated(r#"{"instances":["#, "0,", values, "0]}"),
        repeated(r#"{"instances":["#, "[],", values / 2, "0]}"),
        repeated(r#"{"instances":["#, "{},", values / 21, "0]}"),
        repeated(r#"{"instances":["#, r#"{"":0},"#, values / 21, "0]}"),
        repeated(r#"{"instances":["#, r#""a","#, values, "0]}"),
        repeated(r#"{"instances":[["#, "0,", values - 1, "0]]}"),
        repeated(r#"{"inputs":["#, "0,", values, "0]}"),
        repeated(r#"{"inputs":[["#, "0,", values - 1, "0]]}"),
        repeated(r#"{"inputs":{"x":[["#, "0,", values - 22, "0]]}}"),
        tensor("FP64", "0", data),
        tensor("INT8", "0", data),
        tensor("BYTES", r#""""#, data * 2 / 3),
    ]
}

/// Bodies that claim or hold more than is allowed.
fn greedy() -> Vec<Bytes> {
    let room = limits().max_body_bytes - 200;
    let fill =
        |start: &str, piece: &str, end: &str| repeated(start, piece, room / piece.len(), end);
    let tensor = |shape: &str, data: &str| {
        let start = r#"{"inputs":[{"name":"x","datatype":"FP64","shape":"#;
        Bytes::from(format!("{start}{shape},\"data\":{data}}}]}}"))
    };
    let mut bodies = vec![
        tensor("[1099511627776]", "[1]"),
        tensor("[1048576]", "[1]"),
        tensor("[1048576,0]", "[]"),
        tensor("[18446744073709551615,18446744073709551615]", "[]"),
        fill(r#"{"instances":["#, "0,", "0]}"),
        fill(r#"{"instances":["#, r#"{"":0},"#, "0]}"),
        fill(r#"{"instances":"#, "[", ""),
        fill(r#"{"inputs":["#, "0,", "0]}"),
        fill(r#"{"inputs":["#, r#"{"name":0},"#, "0]}"),
        fill(r#"{"inputs":{"#, r#""":0,"#, r#""":0}}"#),
        fill(r#"{"inputs":[],"outputs":["#, r#""","#, "0]}"),
        fill(r#"{"inputs":[],"parameters":{"#, r#""":0,"#, r#""":0}}"#),
        fill(r#"{"inputs":[{"name":""#, "a", "\"}]}"),
        fill(r#"{"error":""#, "a", "\",\"code\":400}"),
        fill("{", r#""":0,"#, r#""":0}"#),
    ];
    for major in [2_u8, 3, 4, 5] {
        // Claims of 2^62, 2^31 and about as many as there are bytes left.
        for claim in [1_u64 << 62, 1 << 31, room as u64 / 2] {
            let mut body = b"\xa1\x66inputs".to_vec();
            body.push(major << 5 | 27);
            body.extend(claim.to_be_bytes());
            body.resize(room, if major == 5 { 0x60 } else { 0xf6 });
            bodies.push(body.into());
        }
    }
    bodies.push(vec![0x81; room].into());
    bodies.push(
        [&[0x99, 0x4e, 0x20][..], &vec![0x80; 20_000]]
            .concat()
            .into(),
    );
    bodies
}

/// Requests with every datatype, and by row.
fn sound_requests() -> Vec<InferRequest> {
    let bodies = [
        include_str!("golden/request_every_type.json"),
        include_str!("golden/request_rows.json"),
    ];
    let decode = |body: &'static str| InferRequest::decode(&body.into(), None, &Limits::default());
    bodies
        .map(|body| decode(body).expect("a golden request").request)
        .to_vec()
}

#[test]
fn greedy_bodies_take_no_more_than_the_limits_allow() {
    for body in greedy().into_iter().chain(full()) {
        assert!(
            body.len() <= limits().max_body_bytes,
            "or it proves nothing"
        );
        let held = decode(&body);
        let start = body[..body.len().min(60)].escape_ascii();
        assert!(held <= allowed(body.len()), "{held} bytes for {start}");
    }
}

#[test]
fn full_bodies_are_accepted() {
    for body in full() {
        let decoded = InferRequest::decode(&body, None, &limits());
        assert_eq!(
            decoded.map(|_| ()).map_err(|error| error.to_string()),
            Ok(())
        );
    }
}

#[test]
fn a_body_above_the_limit_takes_next_to_nothing() {
    let body = Bytes::from(vec![b'{'; limits().max_body_bytes + 1]);
    let held = decode(&body);
    assert!(held < 4 << 10, "{held} bytes");
}

#[test]
fn the_counter_counts() {
    let held = most_held(|| drop(std::hint::black_box(vec![0_u8; 1 << 20])));
    assert!((1 << 20..2 << 20).contains(&held), "{held} bytes");
}

proptest! {
    // This file is no module of a crate, which proptest would look for to note failures beside.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_take_more_than_the_limits_allow(body in vec(any::<u8>(), 0..300)) {
        let body = Bytes::from(body);
        prop_assert!(decode(&body) <= allowed(body.len()));
    }

    #[test]
    fn no_damaged_body_takes_more_than_the_limits_allow(
        which in any::<prop::sample::Index>(),
        kind in prop::sample::select(vec![ContentType::Json, ContentType::Cbor]),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let Ok(body) = which.get(&sound_requests()).encode(kind) else { return Ok(()) };
        let mut body = body.to_vec();
        for (at, byte) in changes {
            *at.get_mut(&mut body) = byte;
        }
        let body = Bytes::from(body);
        prop_assert!(decode(&body) <= allowed(body.len()));
    }

    #[test]
    fn headers_take_little_more_than_they_are(name in "(?i)infer-[a-z-]{0,12}", value in ".{0,200}") {
        let held = most_held(|| {
            let pairs = [(name.as_str(), value.as_str())];
            let fallback = JobId::derived("S", 1);
            let _ = JobHeaders::parse(pairs, fallback, &ReplyPrefixes::default());
        });
        prop_assert!(held <= (16 << 10) + 8 * value.len());
    }
}
