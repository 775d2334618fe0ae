//! The combined watermark of several inputs, as pure bookkeeping.
//!
//! 1. Each input has a watermark, which only rises, and is active, idle or ended.
//! 2. The combined watermark is the minimum over active inputs; it only rises. Idle inputs hold nothing back; an input
//!    that comes back active below the combined watermark does not pull it down (its records may be late).
//! 3. When all inputs are idle the combination is idle, and its watermark is the greatest that any of them reached: none holds another
//!    back any more, whichever fell silent first. When all have ended it is `Timestamp::MAX`.
//!
//! The same as Flink's status-aware watermark valve; the number of inputs is small (workers or partitions), so the
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
    /// All inputs that have not ended are idle now; before that the combined watermark may have risen.
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

/// Combines the watermarks of a fixed or growing number of inputs.
#[derive(Clone, Debug, Default)]
pub struct Frontier {
    inputs: Vec<Input>,
    combined: Option<Timestamp>,
    idle: bool,
    /// An input was added since the watermarks were last combined.
    grown: bool,
}

impl Frontier {
    /// A frontier over `inputs` inputs, all active and without a watermark.
    pub fn new(inputs: usize) -> Self {
        let input = Input { watermark: Timestamp::MIN, status: Status::Active };
        Frontier { inputs: vec![input; inputs], combined: None, idle: false, grown: false }
    }

    /// Adds an input whose watermark starts at `watermark`, and returns its index. The combination takes note of it only when some
    /// input moves next, so that inputs can be added one by one without the first ones speaking for all.
    pub fn add(&mut self, watermark: Timestamp) -> usize {
        self.inputs.push(Input { watermark, status: Status::Active });
        self.idle = false;
        self.grown = true;
        self.inputs.len() - 1
    }

    /// The combined watermark.
    pub fn watermark(&self) -> Timestamp {
        self.combined.unwrap_or(Timestamp::MIN)
    }

    /// The watermark of one input.
    pub fn input(&self, input: usize) -> Timestamp {
        self.inputs[input].watermark
    }

    /// Whether every input has ended.
    pub fn ended(&self) -> bool {
        self.inputs.iter().all(|input| input.status == Status::Ended)
    }

    /// Input `input` has reached `watermark`; a lower one than before changes nothing.
    pub fn advance(&mut self, input: usize, watermark: Timestamp) -> Moved {
        let slot = &mut self.inputs[input];
        if watermark <= slot.watermark {
            return Moved::Nothing;
        }
        let held = self.grown || slot.watermark <= self.combined.unwrap_or(Timestamp::MIN);
        slot.watermark = watermark;
        if held && slot.status == Status::Active { self.combine() } else { Moved::Nothing }
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
        let idle = !self.ended() && self.inputs.iter().all(|input| input.status != Status::Active);
        match (self.idle, idle) {
            (false, true) => {
                self.idle = true;
                Moved::Idle(self.rise())
            }
            (true, false) if status == Status::Active => {
                self.idle = false;
                Moved::Active(self.rise())
            }
            _ => self.combine(),
        }
    }

    fn combine(&mut self) -> Moved {
        self.rise().map_or(Moved::Nothing, Moved::Watermark)
    }

    /// Combines the watermarks anew; answers the result if it is higher than before.
    fn rise(&mut self) -> Option<Timestamp> {
        self.grown = false;
        let of = |status| self.inputs.iter().filter(move |i| i.status == status).map(|i| i.watermark);
        let lowest = of(Status::Active).min().or_else(|| of(Status::Idle).max()).unwrap_or(Timestamp::MAX);
        let risen = lowest > self.watermark();
        if risen {
            self.combined = Some(lowest);
        }
        risen.then_some(lowest)
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

    /// Every history of three moves over three inputs: the combined watermark never falls and never exceeds an active input's.
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
