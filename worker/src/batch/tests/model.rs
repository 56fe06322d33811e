//! Whatever comes, in whatever order: what waits for an executor against a list that anybody can read.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// Most rows of one work.
const MOST_ROWS: usize = 8;

/// Something that happens to the set of waiting work.
#[derive(Debug, Clone)]
enum Happens {
    /// Work arrives.
    Push {
        model: usize,
        lane: usize,
        rows: usize,
        /// Values of a row: work of different widths never shares a batch.
        width: usize,
        /// Hours until its deadline.
        hours: Option<u64>,
        /// Whether it runs alone.
        whole: bool,
    },
    /// An executor takes a batch, which then takes so many microseconds.
    Take(u64),
    /// Nobody waits for one of those that are left any more.
    Abandon(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    let push = (
        0..2usize,
        0..3usize,
        1..=MOST_ROWS,
        1..3usize,
        option::of(1..5u64),
        0..8u8,
    );
    prop_oneof![
        5 => push.prop_map(|(model, lane, rows, width, hours, whole)| Happens::Push {
            model, lane, rows, width, hours, whole: whole == 0,
        }),
        5 => (0..10_000u64).prop_map(Happens::Take),
        1 => (0..20usize).prop_map(Happens::Abandon),
    ]
}

/// Work as the list keeps it, in order of arrival.
struct Listed {
    work: Arc<Work>,
    answer: Answer,
    /// Units that were taken.
    taken: usize,
}

impl Listed {
    fn group(&self) -> GroupKey {
        group_key(&self.work)
    }

    fn place(&self, arrival: usize) -> (bool, Option<Deadline>, usize) {
        (self.work.deadline.is_none(), self.work.deadline, arrival)
    }
}

#[derive(Default)]
struct List {
    listed: Vec<Listed>,
    /// Batches of a model that began with another lane while this one had work.
    passed_over: HashMap<(ModelName, Lane), usize>,
}

impl List {
    /// Numbers of those with units left in one lane of one group, as they should leave.
    fn in_order(&self, group: &GroupKey, lane: Lane) -> Vec<usize> {
        let of_group = |number: &usize| {
            let listed = &self.listed[*number];
            listed.group() == *group && listed.work.lane == lane
        };
        let mut numbers: Vec<usize> = (0..self.listed.len()).filter(of_group).collect();
        numbers.sort_by_key(|number| self.listed[*number].place(*number));
        numbers
    }

    fn find(&self, work: &Arc<Work>) -> usize {
        let found = self
            .listed
            .iter()
            .position(|listed| Arc::ptr_eq(&listed.work, work));
        found.expect("it was pushed, was not used up, and somebody waits for it")
    }

    /// Takes note of a batch, and checks what must hold for each.
    fn took(&mut self, batch: &Batch, most: usize) {
        let first = batch.slices.first().expect("a batch is never empty");
        let (group, lead) = (group_key(&first.work), first.work.lane);
        let alone = first.work.rows == Rows::Whole;
        let units: usize = batch.slices.iter().map(|slice| slice.units.len()).sum();
        assert!(units <= most && (!alone || batch.slices.len() == 1));
        self.count_who_was_passed_over(&group.model, lead, most);
        let mut expected: HashMap<Lane, std::vec::IntoIter<usize>> = HashMap::new();
        for slice in &batch.slices {
            let lane = slice.work.lane;
            assert_eq!(group_key(&slice.work), group, "one version and shape");
            let queue = expected
                .entry(lane)
                .or_insert_with(|| self.in_order(&group, lane).into_iter());
            let number = self.find(&slice.work);
            assert_eq!(
                queue.next(),
                Some(number),
                "within a lane the earliest deadline first"
            );
            let listed = &mut self.listed[number];
            assert_eq!(
                slice.units.start, listed.taken,
                "no unit twice, and none left out"
            );
            assert!(slice.units.end > slice.units.start && slice.units.end <= listed.work.units());
            listed.taken = slice.units.end;
        }
        let left_of_group = expected.values_mut().any(|queue| queue.next().is_some());
        if !alone && left_of_group && batch.close != CloseReason::Others {
            assert_eq!(units, most, "rows were left that had room");
        }
        if batch.close == CloseReason::Others {
            let pays = first.work.version.pace.pays(most, Instant::now());
            assert_eq!(units, pays, "as many rows as pay");
        }
        self.listed
            .retain(|listed| listed.taken < listed.work.units());
    }

    /// A lane waits while the others get what their weights allow, and no longer.
    fn count_who_was_passed_over(&mut self, model: &ModelName, lead: Lane, most: usize) {
        let weights: u32 = Lane::ALL.iter().map(|lane| lane.weight()).sum();
        // It may be one large batch ahead of the others, who may come with single rows; and of equals
        // the other may be first.
        let bound = (most.max(MOST_ROWS) + 1) * weights as usize;
        for lane in Lane::ALL {
            let of_lane =
                |listed: &Listed| listed.work.version.model == *model && listed.work.lane == lane;
            let has_work = self.listed.iter().any(of_lane);
            let passed = self.passed_over.entry((model.clone(), lane)).or_default();
            *passed = if has_work && lane != lead {
                *passed + 1
            } else {
                0
            };
            assert!(
                *passed <= bound,
                "{lane} of {model} was passed over {passed} times"
            );
        }
    }
}

fn arrival(versions: &[Arc<Version>], happening: &Happens) -> Option<(Arc<Work>, Answer)> {
    let Happens::Push {
        model,
        lane,
        rows,
        width,
        hours,
        whole,
    } = *happening
    else {
        return None;
    };
    let values = vec![0.0; rows * width];
    let input = inferq_schemas::tensor::Tensor::from_f32("x", vec![rows, width], &values);
    let deadline = hours.map(|hours| Deadline(Instant::now() + Duration::from_secs(hours * 3600)));
    let rows = if whole {
        Rows::Whole
    } else {
        Rows::Some((0..rows).collect())
    };
    Some(Work::new(
        versions[model].clone(),
        vec![input.expect("as many values as rows")],
        rows,
        (Lane::ALL[lane], deadline, Span::none(), None),
    ))
}

proptest! {
    #[test]
    fn whatever_arrives_leaves_once_in_order_and_in_time(
        most in 1..9usize,
        full_batches_pay in any::<bool>(),
        happenings in vec(happens(), 1..150),
    ) {
        let versions = ["a", "b"].map(|name| testing::version(name, Ok(()), double));
        if full_batches_pay {
            versions.iter().for_each(|version| learn(version, |_| Duration::from_millis(1)));
        }
        let mut waiting = Waiting::new(limits(most, Duration::ZERO));
        let mut list = List::default();
        // In the end executors take all that is left.
        let last = vec![Happens::Take(1); MOST_ROWS * happenings.len() + 1];
        for happening in happenings.iter().chain(&last) {
            if let Some((work, answer)) = arrival(&versions, happening) {
                list.listed.push(Listed { work: work.clone(), answer, taken: 0 });
                waiting.push(work);
            }
            match happening {
                Happens::Push { .. } => {}
                Happens::Take(micros) => match waiting.take() {
                    Some(batch) => {
                        prop_assert!(!full_batches_pay || batch.close != CloseReason::Others);
                        list.took(&batch, most);
                        waiting.charge(&batch.version.model, Duration::from_micros(*micros));
                    }
                    None => prop_assert!(list.listed.is_empty(), "an executor goes without"),
                },
                Happens::Abandon(number) => {
                    if *number < list.listed.len() {
                        let gone = list.listed.remove(*number);
                        drop(gone.answer);
                    }
                }
            }
        }
        prop_assert!(list.listed.is_empty() && waiting.is_empty());
    }

    #[test]
    fn lanes_that_never_run_dry_share_eight_to_four_to_one_whatever_the_sizes(
        most in 1..9usize,
        sizes in vec(1..9usize, 60..200),
    ) {
        let version = testing::version("a", Ok(()), double);
        let mut waiting = Waiting::new(limits(most, Duration::ZERO));
        let mut answers = Vec::new();
        let mut sizes_again = sizes.iter().cycle();
        let mut taken: HashMap<Lane, usize> = HashMap::new();
        for _ in &sizes {
            for lane in Lane::ALL {
                // More than a batch of each, whatever was taken.
                for _ in 0..most.min(2) {
                    let rows = *sizes_again.next().expect("it is endless");
                    let (work, answer) = by_row(&version, &vec![0.0; rows.max(most)], lane, None);
                    waiting.push(work);
                    answers.push(answer);
                }
            }
            let batch = waiting.take().expect("there is always more");
            let lane = batch.slices[0].work.lane;
            prop_assert!(batch.slices.iter().all(|slice| slice.work.lane == lane));
            *taken.entry(lane).or_default() += batch.rows();
        }
        let share = |lane: Lane| taken.get(&lane).copied().unwrap_or(0) as f64 / f64::from(lane.weight());
        for (one, two) in [(Lane::High, Lane::Normal), (Lane::Normal, Lane::Low), (Lane::High, Lane::Low)] {
            let apart = (share(one) - share(two)).abs();
            let batches = most as f64 / f64::from(one.weight()) + most as f64 / f64::from(two.weight());
            prop_assert!(apart <= batches + 1e-6, "{one} and {two} are {apart} apart: {taken:?}");
        }
    }
}
