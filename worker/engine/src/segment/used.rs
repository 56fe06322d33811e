//! What the segments of a run did with the card, noted on the thread of the run.

use std::cell::Cell;

thread_local! {
    static USE: Cell<CardUse> = const { Cell::new(CardUse { ran: false, fallbacks: 0 }) };
}

/// What the segments of a run did with the card.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CardUse {
    /// At least one ran there.
    pub(crate) ran: bool,
    /// So many should have, and ran on the CPU.
    pub(crate) fallbacks: u64,
}

/// What the segments that ran on this thread did since the last call.
pub(crate) fn take_use() -> CardUse {
    USE.take()
}

pub(super) fn note(change: impl Fn(&mut CardUse)) {
    let mut noted = USE.get();
    change(&mut noted);
    USE.set(noted);
}
