//! Every sequence of barriers, ends and cancels that the grammar of an edge allows, against a plain reading of what
//! alignment means.

use rivermark_checkpoint::{Aligner, Alignment, Epoch};

const EPOCHS: u64 = 3;

/// What was said on each channel, remembered in full.
#[derive(Clone)]
struct Spec {
    /// The newest barrier of each channel, and whether it has ended.
    channels: Vec<(u64, bool)>,
    cancelled: Vec<u64>,
    aligned: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Barrier(usize, u64),
    End(usize),
    Cancel(u64),
}

impl Spec {
    /// The epoch being aligned: the newest one seen, unless it is over.
    fn aligning(&self) -> Option<u64> {
        let newest = self.channels.iter().map(|(barrier, _)| *barrier).max().unwrap();
        (newest > self.over()).then_some(newest)
    }

    fn over(&self) -> u64 {
        self.aligned.iter().chain(&self.cancelled).copied().max().unwrap_or(0)
    }

    fn is_blocked(&self, channel: usize) -> bool {
        let (barrier, ended) = self.channels[channel];
        !ended && self.aligning() == Some(barrier)
    }

    /// Completes the epoch if every channel has delivered its barrier or has ended.
    fn settle(&mut self) -> Option<u64> {
        let epoch = self.aligning()?;
        let complete = self.channels.iter().all(|(barrier, ended)| *ended || *barrier == epoch);
        complete.then(|| self.aligned.push(epoch))?;
        Some(epoch)
    }

    /// Barriers rise on a channel, a blocked channel is not read, nothing follows an end, and an epoch is cancelled
    /// only before the next one is injected.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (channel, (barrier, ended)) in self.channels.iter().enumerate() {
            if !ended && !self.is_blocked(channel) {
                steps.extend((barrier + 1..=EPOCHS).map(|epoch| Step::Barrier(channel, epoch)));
                steps.push(Step::End(channel));
            }
        }
        steps.extend((self.over() + 1..=EPOCHS).map(Step::Cancel));
        steps
    }
}

fn take(spec: &mut Spec, aligner: &mut Aligner, step: Step) {
    let superseded = spec.aligning();
    match step {
        Step::Barrier(channel, epoch) => {
            let stale = epoch <= spec.over() || spec.aligning().is_some_and(|aligning| epoch < aligning);
            spec.channels[channel].0 = epoch;
            let expected = match spec.settle() {
                _ if stale => Alignment::Stale,
                Some(epoch) => Alignment::Aligned(Epoch(epoch)),
                None => match superseded.filter(|older| *older < epoch) {
                    Some(older) => Alignment::Superseded(Epoch(older)),
                    None => Alignment::Waiting,
                },
            };
            assert_eq!(aligner.barrier(channel, Epoch(epoch)), expected);
        }
        Step::End(channel) => {
            spec.channels[channel].1 = true;
            let expected = match spec.settle() {
                Some(epoch) => Alignment::Aligned(Epoch(epoch)),
                None if spec.channels.iter().all(|(_, ended)| *ended) => Alignment::Ended,
                None => Alignment::Waiting,
            };
            assert_eq!(aligner.end(channel), expected);
        }
        Step::Cancel(epoch) => {
            spec.cancelled.push(epoch);
            assert_eq!(aligner.cancel(Epoch(epoch)), superseded.is_some_and(|aligning| aligning <= epoch));
        }
    }
    assert_eq!(aligner.is_ended(), spec.channels.iter().all(|(_, ended)| *ended));
    assert_eq!(aligner.aligning(), spec.aligning().map(Epoch));
    for channel in 0..spec.channels.len() {
        assert_eq!(aligner.is_blocked(channel), spec.is_blocked(channel), "channel {channel}");
    }
    assert!(spec.aligned.is_sorted_by(|a, b| a < b), "an epoch aligned twice or out of order");
}

fn walk(spec: &Spec, aligner: &Aligner, depth: u32, path: &mut Vec<Step>) -> usize {
    if depth == 0 {
        return 1;
    }
    let mut paths = 1;
    for step in spec.steps() {
        let (mut spec, mut aligner) = (spec.clone(), aligner.clone());
        path.push(step);
        take(&mut spec, &mut aligner, step);
        paths += walk(&spec, &aligner, depth - 1, path);
        path.pop();
    }
    paths
}

#[test]
fn every_sequence_aligns_as_the_plain_reading_says() {
    for (channels, depth) in [(1, 7), (2, 7), (3, 6)] {
        let spec = Spec { channels: vec![(0, false); channels], cancelled: Vec::new(), aligned: Vec::new() };
        let paths = walk(&spec, &Aligner::new(channels), depth, &mut Vec::new());
        assert!(paths > 100, "only {paths} sequences of {channels} channels");
    }
}

#[test]
fn an_end_on_a_blocked_channel_counts_once() {
    let mut aligner = Aligner::new(2);
    assert_eq!(aligner.barrier(0, Epoch(1)), Alignment::Waiting);
    assert_eq!(aligner.end(0), Alignment::Waiting);
    assert_eq!(aligner.end(0), Alignment::Waiting);
    assert_eq!(aligner.barrier(1, Epoch(1)), Alignment::Aligned(Epoch(1)));
    assert_eq!(aligner.barrier(1, Epoch(2)), Alignment::Aligned(Epoch(2)));
    assert_eq!(aligner.end(1), Alignment::Ended);
}
