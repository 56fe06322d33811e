use std::sync::Arc;

use super::*;

fn model(name: &str) -> ModelName {
    ModelName::new(name).expect("a valid name")
}

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
    sources.received(id, pending, 1);
    id
}

fn send(sources: &mut Sources, grants: &[Grant]) {
    for grant in grants {
        sources.asked(
            grant.source,
            grant.ask,
            Instant::now() + Duration::from_secs(5),
        );
    }
}

fn fetched(grants: &[Grant]) -> Vec<(SourceId, usize)> {
    let fetches = grants.iter().filter_map(|grant| match grant.ask {
        Ask::Fetch(messages) => Some((grant.source, messages)),
        Ask::Wait => None,
    });
    fetches.collect()
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_waits_at_every_consumer_once() {
    let mut sources = sources(&["a", "b"]);
    let grants = sources.grants(64, 64, |_| 0);
    assert_eq!(grants.len(), 6);
    assert!(grants.iter().all(|grant| grant.ask == Ask::Wait));
    send(&mut sources, &grants);
    assert!(sources.grants(64, 64, |_| 0).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_full_room_asks_for_nothing() {
    let mut sources = sources(&["a"]);
    has_work(&mut sources, "a", Lane::High, 10);
    assert!(sources.grants(0, 64, |_| 64).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_never_asks_for_more_than_there_is_room_for() {
    let mut sources = sources(&["a"]);
    has_work(&mut sources, "a", Lane::Normal, 1000);
    let grants = sources.grants(10, 64, |_| 54);
    assert_eq!(
        fetched(&grants)
            .iter()
            .map(|(_, messages)| messages)
            .sum::<usize>(),
        10
    );
    send(&mut sources, &grants);
    has_work(&mut sources, "a", Lane::High, 1000);
    assert!(
        fetched(&sources.grants(9, 64, |_| 55)).is_empty(),
        "the nine free places are promised already"
    );
}

#[tokio::test(start_paused = true)]
async fn a_flood_in_one_lane_does_not_stop_the_waiting_at_the_others() {
    let mut sources = sources(&["a"]);
    has_work(&mut sources, "a", Lane::Low, 1_000_000);
    let grants = sources.grants(1, 64, |_| 63);
    assert_eq!(fetched(&grants).len(), 1);
    assert_eq!(
        grants.iter().filter(|grant| grant.ask == Ask::Wait).count(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_not_repeated_in_a_tight_loop_but_one_that_brought_something_is() {
    let mut sources = sources(&["a"]);
    let low = has_work(&mut sources, "a", Lane::Low, 100);
    let later = Instant::now() + Duration::from_secs(5);
    sources.asked(low, Ask::Fetch(10), later);
    sources.received(low, 99, 1);
    sources.ended(low, 409);
    assert_eq!(fetched(&sources.grants(1, 64, |_| 0)).len(), 1);
    sources.asked(low, Ask::Fetch(10), later);
    sources.ended(low, 409);
    assert!(fetched(&sources.grants(64, 64, |_| 0)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn lanes_are_served_eight_to_four_to_one() {
    let mut sources = sources(&["a"]);
    let ids = Lane::ALL.map(|lane| has_work(&mut sources, "a", lane, 1_000_000));
    let mut counts = [0; 3];
    for _ in 0..1300 {
        let grants = sources.grants(1, 64, |_| 0);
        for (id, messages) in fetched(&grants) {
            counts[ids
                .iter()
                .position(|other| *other == id)
                .expect("one of the three")] += messages;
            sources.asked(id, Ask::Fetch(1), Instant::now());
            sources.received(id, 1_000_000, 1);
        }
    }
    assert_eq!(counts, [800, 400, 100]);
}

#[tokio::test(start_paused = true)]
async fn a_flooded_model_leaves_half_the_room_to_another_with_work() {
    let mut sources = sources(&["flooded", "small"]);
    has_work(&mut sources, "flooded", Lane::Normal, 100_000);
    has_work(&mut sources, "small", Lane::Normal, 3);
    let grants = sources.grants(64, 64, |_| 0);
    let flooded = sources
        .find("JOBS", "flooded__normal")
        .expect("a served consumer");
    let taken: usize = fetched(&grants)
        .iter()
        .filter(|(id, _)| *id == flooded)
        .map(|(_, messages)| messages)
        .sum();
    assert_eq!(taken, 32);
    assert_eq!(fetched(&grants).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lane_with_work_waits_thirty_seconds_at_most() {
    let mut sources = sources(&["a"]);
    let low = has_work(&mut sources, "a", Lane::Low, 10);
    has_work(&mut sources, "a", Lane::High, 1_000_000);
    sources.charge(&model("a"), Lane::Low, 1_000_000);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_ne!(fetched(&sources.grants(1, 64, |_| 0))[0].0, low);
    tokio::time::advance(PATIENCE).await;
    assert_eq!(fetched(&sources.grants(1, 64, |_| 0))[0].0, low);
}

#[tokio::test(start_paused = true)]
async fn a_lost_request_is_given_up_when_its_time_is_over() {
    let mut sources = sources(&["a"]);
    let grants = sources.grants(64, 64, |_| 0);
    send(&mut sources, &grants);
    tokio::time::advance(Duration::from_secs(6)).await;
    sources.expire(Instant::now());
    assert_eq!(sources.grants(64, 64, |_| 0).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_missing_consumer_is_not_asked_in_a_tight_loop() {
    let mut sources = sources(&["a"]);
    let grants = sources.grants(64, 64, |_| 0);
    send(&mut sources, &grants);
    sources.ended(grants[0].source, 503);
    assert!(sources.grants(64, 64, |_| 0).is_empty());
    tokio::time::advance(Duration::from_secs(1)).await;
    sources.expire(Instant::now());
    assert_eq!(sources.grants(64, 64, |_| 0).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_whose_last_message_was_a_suspect_is_asked_for_one_at_a_time() {
    let mut sources = sources(&["a"]);
    let id = has_work(&mut sources, "a", Lane::Normal, 50);
    for (attempt, messages) in [(1, 50), (2, 50), (3, 1), (7, 1), (1, 50)] {
        sources.received(id, 50, attempt);
        let grants = sources.grants(100, 100, |_| 0);
        assert_eq!(fetched(&grants), [(id, messages)], "delivery {attempt}");
    }
}
