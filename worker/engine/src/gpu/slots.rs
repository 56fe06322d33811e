//! Which buffer each value of a program lives in: one that nobody needs any more is used again.

/// Where a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the workspace's buffer of this number.
    Slot(usize),
    /// On the device since the program was made, in this order.
    Constant(usize),
}

/// What one step does with values.
pub(super) struct Use<'a> {
    pub(super) inputs: &'a [usize],
    /// Its result is its first input under another shape.
    pub(super) view: bool,
}

/// The places of all values, and how many slots they take.
///
/// `sources` are the first values: those marked are constants, all others come with each run. A result
/// never has the place of something its own step reads.
pub(super) fn assign(
    sources: &[bool],
    steps: &[Use<'_>],
    outputs: &[usize],
) -> (Vec<Place>, usize) {
    let total = sources.len() + steps.len();
    // Views are their source.
    let mut origin: Vec<usize> = (0..total).collect();
    for (number, step) in steps.iter().enumerate() {
        if let (true, Some(first)) = (step.view, step.inputs.first()) {
            origin[sources.len() + number] = origin[*first];
        }
    }
    let mut last_use = vec![0; total];
    for (number, step) in steps.iter().enumerate() {
        for input in step.inputs {
            last_use[origin[*input]] = number + 1;
        }
    }
    for output in outputs {
        last_use[origin[*output]] = usize::MAX;
    }
    let mut slots = Slots::default();
    let mut constants = 0;
    let mut places = Vec::with_capacity(total);
    for constant in sources {
        places.push(if *constant {
            constants += 1;
            Place::Constant(constants - 1)
        } else {
            slots.take()
        });
    }
    for (number, _) in steps.iter().enumerate() {
        let value = sources.len() + number;
        if origin[value] != value {
            places.push(places[origin[value]]);
            continue;
        }
        places.push(slots.take());
        // After this step; its own result, too, if nobody ever reads it.
        let ended = |value: &usize| origin[*value] == *value && last_use[*value] <= number + 1;
        let ending: Vec<usize> = (0..=value).filter(ended).collect();
        for value in ending {
            last_use[value] = usize::MAX;
            if let Place::Slot(slot) = places[value] {
                slots.free.push(slot);
            }
        }
    }
    (places, slots.count)
}

#[derive(Default)]
struct Slots {
    free: Vec<usize>,
    count: usize,
}

impl Slots {
    fn take(&mut self) -> Place {
        Place::Slot(self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step(inputs: &[usize]) -> Use<'_> {
        Use {
            inputs,
            view: false,
        }
    }

    #[test]
    fn a_chain_goes_back_and_forth_between_two_slots() {
        let steps = [step(&[0]), step(&[1]), step(&[2])];
        let (places, count) = assign(&[false], &steps, &[3]);
        assert_eq!(count, 2);
        assert_eq!(places[0], places[2]);
        assert_eq!(places[1], places[3]);
    }

    #[test]
    fn a_view_is_where_its_source_is_and_keeps_it() {
        let view = Use {
            inputs: &[1],
            view: true,
        };
        let steps = [step(&[0]), view, step(&[0]), step(&[2, 3])];
        let (places, _) = assign(&[true], &steps, &[4]);
        assert_eq!(places[0], Place::Constant(0));
        assert_eq!(places[2], places[1]);
        assert_ne!(places[3], places[1]);
    }

    proptest! {
        #[test]
        fn no_value_is_overwritten_while_somebody_needs_it(
            sources in prop::collection::vec(any::<bool>(), 1..4),
            steps in prop::collection::vec((prop::collection::vec(any::<prop::sample::Index>(), 1..3), prop::bool::weighted(0.2)), 1..16),
            outputs in prop::collection::vec(any::<prop::sample::Index>(), 1..3),
        ) {
            let inputs: Vec<(Vec<usize>, bool)> = steps
                .iter()
                .enumerate()
                .map(|(number, (inputs, view))| {
                    let before = sources.len() + number;
                    (inputs.iter().map(|input| input.index(before)).collect(), *view)
                })
                .collect();
            let total = sources.len() + steps.len();
            let outputs: Vec<usize> = outputs.iter().map(|output| output.index(total)).collect();
            let uses: Vec<Use<'_>> = inputs.iter().map(|(inputs, view)| Use { inputs, view: *view }).collect();
            let (places, count) = assign(&sources, &uses, &outputs);
            // Who wrote last where; a view is what it looks at.
            let mut content: Vec<Option<usize>> = vec![None; count];
            let mut written: Vec<usize> = (0..total).collect();
            for value in 0..total {
                let own = value.checked_sub(sources.len()).map(|number| &inputs[number]);
                if let Some((reads, view)) = own {
                    for read in reads {
                        if let Place::Slot(slot) = places[*read] {
                            prop_assert_eq!(content[slot], Some(written[*read]), "step {} reads {}", value, read);
                            prop_assert!(*view || places[value] != places[*read], "it writes what it reads");
                        }
                    }
                    if *view {
                        written[value] = written[reads[0]];
                        continue;
                    }
                }
                if let Place::Slot(slot) = places[value] {
                    content[slot] = Some(value);
                }
            }
            for output in outputs {
                if let Place::Slot(slot) = places[output] {
                    prop_assert_eq!(content[slot], Some(written[output]), "output {}", output);
                }
            }
        }
    }
}
