use std::sync::Arc;

use super::*;
use crate::testing::{self, model};

fn serving(models: &[&str]) -> Serving {
    let mut all = Vec::new();
    for name in models {
        for lane in Lane::ALL {
            all.push(Served {
                model: model(name),
                lane,
                stream: "JOBS".into(),
                name: format!("{name}__{lane}"),
            });
        }
    }
    Arc::new(all)
}

fn sources(models: &[&str]) -> Sources {
    let mut sources = Sources::new();
    sources.update(&serving(models));
    sources
}

fn has_work(sources: &mut Sources, name: &str, lane: Lane, pending: u64) -> SourceId {
    let id = sources
        .find("JOBS", &format!("{name}__{lane}"))
        .expect("a served consumer");
    sources.received(id, arrival(pending, 1));
    id
}

fn arrival(pending: u64, attempt: u64) -> Arrival {
    Arrival {
        pending,
        attempt,
        bytes: 1,
    }
}

/// Room for what a request may bring, of a room that no test fills.
fn promise() -> Promise {
    let room = testing::room(1000, 1000);
    room.promise(&model("a"), Lane::Low, 0, 0)
        .expect("it is free")
}

fn ended(sources: &mut Sources, source: SourceId, status: u16) {
    sources.ended(source, status, false);
}

const WAIT: Ask = Ask::Wait { large: false };

fn send(sources: &mut Sources, grants: &[Grant]) {
    for grant in grants {
        sources.asked(
            grant.source,
            grant.ask,
            promise(),
            Instant::now() + Duration::from_secs(5),
        );
    }
}

/// Places, each for a message of one row.
fn free(places: usize) -> Free {
    Free {
        places,
        messages: places,
    }
}

fn single(_: &ModelName, _: Lane) -> usize {
    1
}

fn fetched(grants: &[Grant]) -> Vec<(SourceId, usize)> {
    let fetches = grants.iter().filter_map(|grant| match grant.ask {
        Ask::Fetch(messages) => Some((grant.source, messages)),
        Ask::Wait { .. } => None,
    });
    fetches.collect()
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_waits_at_every_consumer_once() {
    let mut sources = sources(&["a", "b"]);
    let grants = sources.grants(free(64), |_| 64, single);
    assert_eq!(grants.len(), 6);
    assert!(grants.iter().all(|grant| grant.ask == WAIT));
    send(&mut sources, &grants);
    assert!(sources.grants(free(64), |_| 64, single).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_full_room_asks_for_nothing() {
    let mut sources = sources(&["a"]);
    has_work(&mut sources, "a", Lane::High, 10);
    assert!(sources.grants(free(0), |_| 64, single).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_never_asks_for_more_than_there_is_room_for() {
    let mut sources = sources(&["a"]);
    has_work(&mut sources, "a", Lane::Normal, 1000);
    let grants = sources.grants(free(10), |_| 64, single);
    assert_eq!(
        fetched(&grants)
            .iter()
            .map(|(_, messages)| messages)
            .sum::<usize>(),
        10
    );
}

#[tokio::test(start_paused = true)]
async fn a_flood_in_one_lane_does_not_stop_the_waiting_at_the_others() {
    let mut sources = sources(&["a"]);
    has_work(&mut sources, "a", Lane::Low, 1_000_000);
    let grants = sources.grants(free(1), |_| 64, single);
    assert_eq!(fetched(&grants).len(), 1);
    assert_eq!(grants.iter().filter(|grant| grant.ask == WAIT).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_not_repeated_in_a_tight_loop_but_one_that_brought_something_is() {
    let mut sources = sources(&["a"]);
    let low = has_work(&mut sources, "a", Lane::Low, 100);
    let later = Instant::now() + Duration::from_secs(5);
    sources.asked(low, Ask::Fetch(10), promise(), later);
    sources.received(low, arrival(99, 1));
    ended(&mut sources, low, 409);
    assert_eq!(fetched(&sources.grants(free(1), |_| 64, single)).len(), 1);
    sources.asked(low, Ask::Fetch(10), promise(), later);
    ended(&mut sources, low, 409);
    assert!(fetched(&sources.grants(free(64), |_| 64, single)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn lanes_are_served_eight_to_four_to_one() {
    let mut sources = sources(&["a"]);
    let ids = Lane::ALL.map(|lane| has_work(&mut sources, "a", lane, 1_000_000));
    let mut counts = [0; 3];
    for _ in 0..1300 {
        let grants = sources.grants(free(1), |_| 64, single);
        for (id, messages) in fetched(&grants) {
            counts[ids
                .iter()
                .position(|other| *other == id)
                .expect("one of the three")] += messages;
            sources.asked(id, Ask::Fetch(1), promise(), Instant::now());
            sources.received(id, arrival(1_000_000, 1));
        }
    }
    assert_eq!(counts, [800, 400, 100]);
}

#[tokio::test(start_paused = true)]
async fn no_model_is_granted_more_than_is_open_to_it() {
    let mut sources = sources(&["flooded", "small"]);
    for lane in Lane::ALL {
        has_work(&mut sources, "flooded", lane, 100_000);
    }
    let small = has_work(&mut sources, "small", Lane::Normal, 3);
    let open = |of: &ModelName| if of.as_str() == "flooded" { 20 } else { 32 };
    let grants = fetched(&sources.grants(free(64), open, single));
    let (own, others): (Vec<_>, Vec<_>) = grants.into_iter().partition(|(id, _)| *id == small);
    assert_eq!(own, [(small, 3)]);
    assert_eq!(
        others.iter().map(|(_, messages)| messages).sum::<usize>(),
        20
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_too_large_for_a_waiting_pull_is_asked_for_with_room_and_before_others() {
    let mut sources = sources(&["a"]);
    let grants = sources.grants(free(64), |_| 64, single);
    send(&mut sources, &grants);
    let large = grants[2].source;
    sources.ended(large, 409, true);
    for other in [grants[0].source, grants[1].source] {
        ended(&mut sources, other, 408);
    }
    let again = sources.grants(free(64), |_| 64, single);
    assert_eq!(
        again[0],
        Grant {
            source: large,
            ask: Ask::Wait { large: true }
        }
    );
    assert_eq!((again.len(), again[1].ask), (3, WAIT));
    send(&mut sources, &again);
    sources.received(large, arrival(0, 1));
    assert_eq!(sources.grants(free(64), |_| 64, single)[0].ask, WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_large_message_that_another_worker_took_is_waited_for_as_any_other() {
    let mut sources = sources(&["a"]);
    let waiting = sources.grants(free(64), |_| 64, single);
    send(&mut sources, &waiting);
    let large = waiting[0].source;
    sources.ended(large, 409, true);
    let again = sources.grants(free(64), |_| 64, single);
    send(&mut sources, &again);
    ended(&mut sources, large, 408);
    assert_eq!(sources.grants(free(64), |_| 64, single)[0].ask, WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_lane_with_work_waits_thirty_seconds_at_most() {
    let mut sources = sources(&["a"]);
    let low = has_work(&mut sources, "a", Lane::Low, 10);
    has_work(&mut sources, "a", Lane::High, 1_000_000);
    sources.charge(&model("a"), Lane::Low, 1_000_000);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_ne!(fetched(&sources.grants(free(1), |_| 64, single))[0].0, low);
    tokio::time::advance(PATIENCE).await;
    assert_eq!(fetched(&sources.grants(free(1), |_| 64, single))[0].0, low);
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_is_given_up_when_its_time_is_over() {
    let mut sources = sources(&["a"]);
    let grants = sources.grants(free(64), |_| 64, single);
    send(&mut sources, &grants);
    tokio::time::advance(Duration::from_secs(6)).await;
    sources.expire(Instant::now());
    assert_eq!(sources.grants(free(64), |_| 64, single).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_missing_consumer_is_not_asked_in_a_tight_loop() {
    let mut sources = sources(&["a"]);
    let grants = sources.grants(free(64), |_| 64, single);
    send(&mut sources, &grants);
    ended(&mut sources, grants[0].source, 503);
    assert!(sources.grants(free(64), |_| 64, single).is_empty());
    tokio::time::advance(Duration::from_secs(1)).await;
    sources.expire(Instant::now());
    assert_eq!(sources.grants(free(64), |_| 64, single).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_whose_last_message_was_a_suspect_is_asked_for_one_at_a_time() {
    let mut sources = sources(&["a"]);
    let id = has_work(&mut sources, "a", Lane::Normal, 50);
    for (attempt, messages) in [(1, 50), (2, 50), (3, 1), (7, 1), (1, 50)] {
        sources.received(id, arrival(50, attempt));
        let grants = sources.grants(free(100), |_| 100, single);
        assert_eq!(fetched(&grants), [(id, messages)], "delivery {attempt}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_many_rows_are_fetched_few_at_a_time() {
    let mut sources = sources(&["a"]);
    let low = has_work(&mut sources, "a", Lane::Low, 1000);
    let grants = sources.grants(free(64), |_| 64, |_, _| 10);
    assert_eq!(fetched(&grants), [(low, 6)]);
}

#[tokio::test(start_paused = true)]
async fn a_large_message_waits_until_it_fits_and_nobody_takes_its_places() {
    let mut sources = sources(&["a", "b"]);
    let large = has_work(&mut sources, "a", Lane::Low, 1000);
    let small = has_work(&mut sources, "b", Lane::Low, 1000);
    let usual = |model: &ModelName, _: Lane| if model.as_str() == "a" { 8 } else { 1 };
    let grants = sources.grants(free(5), |_| 64, usual);
    assert!(fetched(&grants).is_empty(), "{grants:?}");
    let grants = sources.grants(free(9), |_| 64, usual);
    assert_eq!(fetched(&grants), [(large, 1), (small, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_message_larger_than_the_share_of_its_model_comes_all_the_same() {
    let mut sources = sources(&["a"]);
    let low = has_work(&mut sources, "a", Lane::Low, 1000);
    let grants = sources.grants(free(64), |_| 2, |_, _| 8);
    assert_eq!(fetched(&grants), [(low, 1)]);
}

#[tokio::test(start_paused = true)]
async fn fetches_bring_no_more_messages_than_there_are_bytes_for() {
    let mut sources = sources(&["a"]);
    let low = has_work(&mut sources, "a", Lane::Low, 1000);
    let free = Free {
        places: 64,
        messages: 3,
    };
    let grants = sources.grants(free, |_| 64, single);
    assert_eq!(fetched(&grants), [(low, 3)]);
}
