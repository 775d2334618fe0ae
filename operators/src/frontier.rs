//! The combined watermark of several inputs, as pure bookkeeping.
//!
//! 1. Each input has a watermark, which only rises, and is active, idle or ended.
//! 2. The combined watermark is the minimum over active inputs; it only rises. The others hold nothing back; an input
//!    that comes back active below the combined watermark does not pull it down (its records may be late).
//! 3. When none is active but some are idle, the combination is idle, and its watermark is the greatest that any of the idle ones reached:
//!    none holds another back any more, whichever fell silent first. Those that have ended do not count: they would end time for inputs
//!    that are merely silent.
//! 4. When all have ended it is `Timestamp::MAX`.
//! 5. An input whose watermark is `Timestamp::MAX` has ended, though its `End` comes only with the end of the job.
//!
//! Rules 1 to 3 are those of Flink's status-aware watermark valve; the number of inputs is small (workers or partitions), so the
//! minimum is recomputed only when the input that held it has moved.

use crate::edge::Signal;
use crate::time::Timestamp;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Status {
    Active,
    Idle,
    Ended,
}

#[derive(Copy, Clone, Debug)]
struct Input {
    watermark: Timestamp,
    status: Status,
}

/// What a change of one input means for the combination.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Nothing changed.
    Nothing,
    /// The combined watermark rose to this.
    Watermark(Timestamp),
    /// No input is active now, and some are idle; before that the combined watermark may have risen.
    Idle(Option<Timestamp>),
    /// The first of them is active again; then the combined watermark may have risen.
    Active(Option<Timestamp>),
}

impl Moved {
    /// What is said downstream, in order.
    pub fn signals(self) -> impl Iterator<Item = Signal> {
        let (before, then, after) = match self {
            Moved::Nothing => (None, None, None),
            Moved::Watermark(to) => (Some(to), None, None),
            Moved::Idle(risen) => (risen, Some(Signal::Idle), None),
            Moved::Active(risen) => (None, Some(Signal::Active), risen),
        };
        let watermark = |to: Option<Timestamp>| to.map(Signal::Watermark);
        [watermark(before), then, watermark(after)].into_iter().flatten()
    }
}

/// Combines the watermarks of a fixed number of inputs.
#[derive(Clone, Debug)]
pub struct Frontier {
    inputs: Vec<Input>,
    combined: Option<Timestamp>,
    /// What the inputs come to together.
    status: Status,
}

impl Frontier {
    /// A frontier over `inputs` inputs, all active and without a watermark.
    pub fn new(inputs: usize) -> Self {
        let input = Input { watermark: Timestamp::MIN, status: Status::Active };
        Frontier { inputs: vec![input; inputs], combined: None, status: Status::Active }
    }

    /// The combined watermark.
    pub fn watermark(&self) -> Timestamp {
        self.combined.unwrap_or(Timestamp::MIN)
    }

    /// Takes what input `input` says of time. What is not about time moves nothing.
    pub fn hear(&mut self, input: usize, signal: Signal) -> Moved {
        match signal {
            Signal::Watermark(to) => self.advance(input, to),
            Signal::Idle => self.idle(input),
            Signal::Active => self.active(input),
            Signal::End => self.end(input),
            Signal::Partition(_) | Signal::Barrier(_) => Moved::Nothing,
        }
    }

    /// Input `input` has reached `watermark`; a lower one than before changes nothing, and the end of time is its end.
    pub fn advance(&mut self, input: usize, watermark: Timestamp) -> Moved {
        if watermark == Timestamp::MAX {
            return self.end(input);
        }
        let slot = &mut self.inputs[input];
        if watermark <= slot.watermark {
            return Moved::Nothing;
        }
        let held = slot.watermark <= self.combined.unwrap_or(Timestamp::MIN);
        slot.watermark = watermark;
        if held && slot.status == Status::Active { self.settle() } else { Moved::Nothing }
    }

    /// Input `input` will be silent for a while and holds nothing back.
    pub fn idle(&mut self, input: usize) -> Moved {
        self.set_status(input, Status::Idle)
    }

    /// Input `input` has spoken again.
    pub fn active(&mut self, input: usize) -> Moved {
        self.set_status(input, Status::Active)
    }

    /// Input `input` has ended: it holds nothing back any more.
    pub fn end(&mut self, input: usize) -> Moved {
        self.set_status(input, Status::Ended)
    }

    fn set_status(&mut self, input: usize, status: Status) -> Moved {
        let slot = &mut self.inputs[input];
        if slot.status == status || slot.status == Status::Ended {
            return Moved::Nothing;
        }
        slot.status = status;
        self.settle()
    }

    /// What has come of a change.
    fn settle(&mut self) -> Moved {
        let (before, now) = (self.status, self.together());
        self.status = now;
        match (before, now) {
            (Status::Active, Status::Idle) => Moved::Idle(self.rise()),
            (Status::Idle, Status::Active) => Moved::Active(self.rise()),
            _ => self.rise().map_or(Moved::Nothing, Moved::Watermark),
        }
    }

    /// What the inputs come to together.
    fn together(&self) -> Status {
        let any = |status| self.inputs.iter().any(|input| input.status == status);
        [Status::Active, Status::Idle].into_iter().find(|status| any(*status)).unwrap_or(Status::Ended)
    }

    /// Combines the watermarks anew; answers the result if it is higher than before.
    fn rise(&mut self) -> Option<Timestamp> {
        let of = |status| self.inputs.iter().filter(move |i| i.status == status).map(|i| i.watermark);
        let lowest = match self.status {
            Status::Active => of(Status::Active).min(),
            Status::Idle => of(Status::Idle).max(),
            Status::Ended => Some(Timestamp::MAX),
        };
        let risen = lowest.filter(|lowest| *lowest > self.watermark());
        self.combined = risen.or(self.combined);
        risen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn the_slowest_active_input_holds_the_watermark() {
        let mut frontier = Frontier::new(2);
        assert_eq!(frontier.advance(0, t(10)), Moved::Nothing);
        assert_eq!(frontier.advance(1, t(5)), Moved::Watermark(t(5)));
        assert_eq!(frontier.advance(1, t(20)), Moved::Watermark(t(10)));
    }

    #[test]
    fn an_idle_input_lets_the_others_pass_and_does_not_pull_back() {
        let mut frontier = Frontier::new(2);
        frontier.advance(0, t(10));
        assert_eq!(frontier.idle(1), Moved::Watermark(t(10)));
        assert_eq!(frontier.active(1), Moved::Nothing);
        assert_eq!(frontier.advance(1, t(3)), Moved::Nothing);
        assert_eq!(frontier.watermark(), t(10));
        assert_eq!(frontier.advance(0, t(30)), Moved::Nothing);
        assert_eq!(frontier.advance(1, t(20)), Moved::Watermark(t(20)));
    }

    #[test]
    fn all_idle_is_said_once_and_all_ended_is_the_end_of_time() {
        let mut frontier = Frontier::new(2);
        assert_eq!(frontier.idle(0), Moved::Nothing);
        assert_eq!(frontier.idle(1), Moved::Idle(None));
        assert_eq!(frontier.active(0), Moved::Active(None));
        assert_eq!(frontier.end(0), Moved::Idle(None));
        assert_eq!(frontier.end(1), Moved::Watermark(Timestamp::MAX));
    }

    #[test]
    fn of_idle_inputs_the_one_furthest_on_counts_whichever_fell_silent_first() {
        for order in [[0, 1], [1, 0]] {
            let mut frontier = Frontier::new(2);
            frontier.advance(0, t(10));
            let moved = order.map(|input| frontier.idle(input));
            let said: Vec<Signal> = moved.into_iter().flat_map(Moved::signals).collect();
            assert_eq!(said, [Signal::Watermark(t(10)), Signal::Idle]);
            // An input that rose in its silence speaks of it when it is back.
            frontier.advance(1, t(30));
            assert_eq!(frontier.active(1), Moved::Active(Some(t(30))));
        }
    }

    #[test]
    fn an_input_at_the_end_of_time_does_not_end_it_for_those_that_are_idle() {
        for idle_first in [true, false] {
            let mut frontier = Frontier::new(2);
            frontier.advance(1, t(10));
            let end = |frontier: &mut Frontier| frontier.advance(0, Timestamp::MAX);
            let silence = |frontier: &mut Frontier| frontier.idle(1);
            if idle_first {
                assert_eq!(silence(&mut frontier), Moved::Nothing);
                assert_eq!(end(&mut frontier), Moved::Idle(Some(t(10))));
            } else {
                assert_eq!(end(&mut frontier), Moved::Watermark(t(10)));
                assert_eq!(silence(&mut frontier), Moved::Idle(None));
            }
            // It has ended in its silence: all have.
            assert_eq!(frontier.advance(1, Timestamp::MAX), Moved::Watermark(Timestamp::MAX));
        }
    }

    /// Every history of four moves over three inputs: the combined watermark never falls and never exceeds an active input's.
    #[test]
    fn every_short_history_keeps_the_promise() {
        let moves = 3 * 6;
        for history in 0..(moves as usize).pow(4) {
            let (mut frontier, mut code, mut before) = (Frontier::new(3), history, Timestamp::MIN);
            for step in 0..4 {
                let (input, what) = (code % 3, code / 3 % 6);
                code /= moves as usize;
                match what {
                    0 => frontier.idle(input),
                    1 => frontier.active(input),
                    2 => frontier.end(input),
                    rise => frontier.advance(input, t(step * 10 + rise as i64)),
                };
                assert!(frontier.watermark() >= before);
                before = frontier.watermark();
            }
        }
    }
}
