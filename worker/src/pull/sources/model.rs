//! The room and what is asked of the consumers, against a queue that answers, is silent, and answers late.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use inferq_schemas::subjects::Lane;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::hold::{Hold, Room, Way};
use crate::testing;

/// Places, and bytes, of the room.
const ROWS: usize = 32;
const BYTES: usize = 1_000;
/// The largest message, and what a waiting pull has bytes for, as `ask.rs` asks.
const LARGEST: usize = 200;
const WAITING: usize = 50;
/// How long a request is waited for.
const UNTIL: Duration = Duration::from_secs(7);
const MODELS: [&str; 2] = ["a", "b"];
const SOURCES: usize = MODELS.len() * Lane::ALL.len();

#[derive(Debug, Clone, Copy)]
struct Message {
    bytes: usize,
    rows: usize,
    attempt: u64,
}

#[derive(Debug, Clone)]
enum Happens {
    /// Messages reach the queue of a source.
    Arrive(usize, Message, usize),
    /// The server answers what is asked of a source.
    Answer(usize),
    /// Whatever it answers is lost.
    Lose(usize),
    /// The worker is done with so many deliveries.
    Settle(usize),
    /// Milliseconds pass.
    Wait(u64),
}

fn happens() -> impl Strategy<Value = Happens> {
    let message = (1..=LARGEST, 1..10usize, 1..5u64).prop_map(|(bytes, rows, attempt)| Message {
        bytes,
        rows,
        attempt,
    });
    prop_oneof![
        4 => (0..SOURCES, message, 1..20usize).prop_map(|(source, message, count)| Happens::Arrive(source, message, count)),
        6 => (0..SOURCES).prop_map(Happens::Answer),
        1 => (0..SOURCES).prop_map(Happens::Lose),
        3 => (1..ROWS).prop_map(Happens::Settle),
        2 => (1..9_000u64).prop_map(Happens::Wait),
    ]
}

/// A request that the server has.
struct Asked {
    ask: Ask,
    bytes: usize,
    until: Instant,
    lost: bool,
}

/// A worker's intake, and the server.
struct World {
    sources: Sources,
    ids: Vec<SourceId>,
    room: Room,
    held: VecDeque<(Hold, Message)>,
    /// How many of them are decoded: their rows are known.
    decoded: usize,
    queues: Vec<VecDeque<Message>>,
    asked: BTreeMap<SourceId, Asked>,
    suspects: Vec<bool>,
    last_fetch: Vec<Instant>,
}

impl World {
    fn new() -> Self {
        let all = MODELS.into_iter().flat_map(|name| {
            Lane::ALL.into_iter().map(move |lane| Served {
                model: testing::model(name),
                lane,
                stream: "JOBS".to_owned(),
                name: format!("{name}__{lane}"),
            })
        });
        let serving: Serving = Arc::new(all.collect());
        let mut sources = Sources::new();
        sources.update(&serving);
        let id_of = |served: &Served| sources.find(&served.stream, &served.name);
        let ids = serving
            .iter()
            .map(|served| id_of(served).expect("it is served"));
        Self {
            ids: ids.collect(),
            sources,
            room: testing::room(ROWS, BYTES),
            held: VecDeque::new(),
            decoded: 0,
            queues: vec![VecDeque::new(); SOURCES],
            asked: BTreeMap::new(),
            suspects: vec![false; SOURCES],
            last_fetch: vec![Instant::now(); SOURCES],
        }
    }

    /// As `ask.rs` does it.
    fn issue(&mut self) {
        self.room.queues_hold(self.sources.with_more());
        let free = Free {
            places: self.room.free_for_queues(),
            messages: self.room.free_messages(LARGEST),
        };
        let room = self.room.clone();
        let open = |model: &ModelName| room.open_to_queue(model);
        let usual = |model: &ModelName, lane| room.usual_places(model, lane);
        let grants = self.sources.grants(free, open, usual);
        let mut fetched = 0;
        for Grant { source, ask } in grants {
            assert!(
                !self.asked.contains_key(&source),
                "a second request beside the first"
            );
            let index = self.index(source);
            let (messages, bytes) = match ask {
                Ask::Fetch(messages) => {
                    assert!(
                        messages == 1 || !self.suspects[index],
                        "suspects come one at a time"
                    );
                    (messages, messages * LARGEST)
                }
                Ask::Wait { large: true } => (0, LARGEST),
                Ask::Wait { large: false } => (0, WAITING),
            };
            let served = self.sources.served(source).expect("it is served");
            let promise = self
                .room
                .promise(&served.model, served.lane, messages, bytes);
            let Some(promise) = promise else {
                break;
            };
            if messages > 0 {
                self.last_fetch[index] = Instant::now();
            }
            fetched += messages * usual(&served.model, served.lane);
            let until = Instant::now() + UNTIL;
            self.sources.asked(source, ask, promise, until);
            self.asked.insert(
                source,
                Asked {
                    ask,
                    bytes,
                    until,
                    lost: false,
                },
            );
        }
        assert!(fetched <= free.places, "{fetched} asked for, {free:?}");
    }

    fn index(&self, source: SourceId) -> usize {
        let found = self.ids.iter().position(|id| *id == source);
        found.expect("one of ours")
    }

    fn answer(&mut self, index: usize) {
        let source = self.ids[index];
        let Some(mut asked) = self.asked.remove(&source).filter(|asked| !asked.lost) else {
            return;
        };
        let (most, waits) = match asked.ask {
            Ask::Wait { .. } => (1, true),
            Ask::Fetch(messages) => (messages, false),
        };
        for _ in 0..most {
            match self.queues[index].front().copied() {
                None if waits => {
                    self.asked.insert(source, asked);
                    return;
                }
                None => return self.sources.ended(source, 404, false),
                Some(message) if message.bytes > asked.bytes => {
                    return self.sources.ended(source, 409, true);
                }
                Some(message) => {
                    self.queues[index].pop_front();
                    asked.bytes -= message.bytes;
                    self.deliver(index, message);
                }
            }
        }
    }

    fn deliver(&mut self, index: usize, message: Message) {
        let source = self.ids[index];
        let served = self.sources.served(source).expect("it is served");
        let way = Way::Queue(served.lane);
        let hold = self.room.enter(&served.model, way, message.bytes, None);
        self.held.push_back((hold, message));
        self.suspects[index] = message.attempt >= SUSPECT_FROM;
        let arrival = Arrival {
            pending: self.queues[index].len() as u64,
            attempt: message.attempt,
            bytes: message.bytes,
        };
        self.sources.received(source, arrival);
    }

    async fn pass(&mut self, time: Duration) {
        tokio::time::advance(time).await;
        let now = Instant::now();
        self.sources.expire(now);
        self.asked.retain(|_, asked| now < asked.until);
    }

    /// As the stage after it does, some time after they have come.
    fn decode(&mut self) {
        for (hold, message) in self.held.iter_mut().skip(self.decoded) {
            hold.weigh(message.rows);
        }
        self.decoded = self.held.len();
    }

    async fn happens(&mut self, happening: &Happens) {
        self.decode();
        match happening {
            Happens::Arrive(index, message, count) => {
                self.queues[*index].extend(vec![*message; *count]);
            }
            Happens::Answer(index) => self.answer(*index),
            Happens::Lose(index) => {
                if let Some(asked) = self.asked.get_mut(&self.ids[*index]) {
                    asked.lost = true;
                }
            }
            Happens::Settle(count) => {
                let count = (*count).min(self.held.len());
                self.held.drain(..count);
                self.decoded -= count;
            }
            Happens::Wait(ms) => self.pass(Duration::from_millis(*ms)).await,
        }
    }

    fn check(&self) {
        // Each waiting pull may bring one message that no place was kept for, and none that no bytes were.
        assert!(
            self.held.len() <= ROWS + SOURCES,
            "{} held",
            self.held.len()
        );
        let bytes: usize = self.held.iter().map(|(_, message)| message.bytes).sum();
        assert!(bytes <= BYTES, "{bytes} bytes held");
    }

    /// The server answers everything, and everything is settled, once.
    async fn round(&mut self) {
        self.issue();
        for index in 0..SOURCES {
            self.answer(index);
            self.check();
        }
        self.decode();
        self.held.clear();
        self.decoded = 0;
        self.pass(Duration::from_secs(1)).await;
    }
}

fn in_time_of_its_own<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(what)
}

proptest! {
    #[test]
    fn the_room_is_never_passed_and_every_message_is_fetched_in_the_end(happenings in vec(happens(), 1..200)) {
        in_time_of_its_own(async {
            let mut world = World::new();
            for happening in &happenings {
                world.issue();
                world.happens(happening).await;
                world.check();
            }
            let waiting = |world: &World| world.queues.iter().map(VecDeque::len).sum::<usize>();
            // Requests that were lost are waited for first; from then on each round brings something.
            for _ in 0..waiting(&world) + 2 * UNTIL.as_secs() as usize {
                world.round().await;
            }
            assert_eq!(waiting(&world), 0, "left in their queues");
            world.sources.forget_requests();
            let free = (world.room.free_rows(), world.room.free_bytes());
            assert_eq!(free, (ROWS, BYTES), "promised to nobody");
        });
    }

    #[test]
    fn a_lane_that_always_has_work_is_asked_within_its_time_whatever_floods_the_others(
        floods in vec(1..500usize, SOURCES),
        sizes in vec(1..=LARGEST, SOURCES),
    ) {
        in_time_of_its_own(async {
            let mut world = World::new();
            for _ in 0..200 {
                for (index, queue) in world.queues.iter_mut().enumerate() {
                    let message = Message { bytes: sizes[index], rows: 1 + index, attempt: 1 };
                    queue.resize(floods[index] + 1, message);
                }
                world.round().await;
                // One is served after the other when several have waited for as long.
                let bound = PATIENCE + Duration::from_secs(SOURCES as u64);
                for (index, last) in world.last_fetch.iter().enumerate() {
                    assert!(last.elapsed() <= bound, "source {index} waits for {:?}", last.elapsed());
                }
            }
        });
    }
}
