//! The state of a key: its partial matches, and the events they are made of.
//!
//! 1. An event that some partial match takes is kept once. What takes it is a node: step, event, and the node before. So a partial match
//!    is the path from its last node to its first, and those that part later share what they have in common.
//! 2. Nodes that no partial match reaches any more are garbage, with their events. It is swept when there is as much of it as there is
//!    of the rest, so that sweeping costs a node as much as making it.
//!
//! The shared buffer of SASE+ (Agrawal et al., "Efficient Pattern Matching over Event Streams", SIGMOD 2008) and Flink lets the paths of several
//! partial matches run through one node, and tells them apart by version numbers. Here a node has one predecessor, so there are no versions
//! and nothing is counted. A buffer of theirs is smaller only where several paths come together again, and each of those paths is a partial
//! match of its own, which takes as much room as a node.

use super::automaton::Automaton;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Below so many nodes nothing is swept.
const SWEEP_FROM: usize = 16;

/// The partial matches of one key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Runs<V> {
    /// The position of the next event; positions count the key's events since there was no partial match.
    pub(super) next: u64,
    /// Partial matches, those that began earlier first, and then by the events they take: what takes an event before what passes it over.
    pub(super) open: Vec<Run>,
    /// Matches that wait for those that began earlier, in the order in which they were complete.
    pub(super) complete: Vec<Complete>,
    pub(super) buffer: Buffer<V>,
    /// Whether a timer is set.
    pub(super) has_timer: bool,
}

impl<V> Default for Runs<V> {
    fn default() -> Self {
        let buffer = Buffer { events: Vec::new(), nodes: Vec::new(), swept: 0 };
        Runs { next: 0, open: Vec::new(), complete: Vec::new(), buffer, has_timer: false }
    }
}

/// The first event of a partial match.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) position: u64,
    pub(super) time: Timestamp,
}

/// A partial match.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) start: Start,
    /// The node of its last event.
    pub(super) last: u32,
    /// How many events its last step has taken.
    pub(super) count: u32,
    /// Which steps can take its next event, as bits; one beyond the last step stands for the end.
    pub(super) pending: u64,
}

/// A match that has not been told yet.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
pub(super) struct Complete {
    pub(super) start: Start,
    pub(super) last: u32,
}

/// The events of a key's partial matches.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Buffer<V> {
    pub(super) events: Vec<Event<V>>,
    pub(super) nodes: Vec<Node>,
    /// How many nodes were left by the last sweep.
    swept: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Event<V> {
    pub(super) position: u64,
    pub(super) time: Timestamp,
    pub(super) value: V,
}

/// That a step takes an event.
#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) event: u32,
    pub(super) step: u16,
    pub(super) before: Option<u32>,
}

impl<V> Runs<V> {
    /// Whether there is nothing to remember.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.complete.is_empty()
    }

    /// Forgets what no partial match is made of any more. `candidate` is the event in hand, which was put last.
    pub(super) fn tidy(&mut self, candidate: u32) {
        if self.is_idle() {
            self.next = 0;
            self.buffer.events.clear();
            self.buffer.nodes.clear();
            self.buffer.swept = 0;
            return;
        }
        let buffer = &mut self.buffer;
        if buffer.nodes.last().is_none_or(|node| node.event != candidate) {
            buffer.events.pop();
        }
        if buffer.nodes.len() >= SWEEP_FROM.max(2 * buffer.swept as usize) {
            self.sweep();
        }
    }

    fn sweep(&mut self) {
        let mut kept = vec![false; self.buffer.nodes.len()];
        let ends =
            self.open.iter().map(|run| run.last).chain(self.complete.iter().map(|complete| complete.last));
        ends.for_each(|last| kept[last as usize] = true);
        // A node comes after the one before it.
        for (at, node) in self.buffer.nodes.iter().enumerate().rev() {
            if let (true, Some(before)) = (kept[at], node.before) {
                kept[before as usize] = true;
            }
        }
        let (nodes, events) = self.buffer.keep(&kept);
        for run in &mut self.open {
            run.last = nodes[run.last as usize];
        }
        for complete in &mut self.complete {
            complete.last = nodes[complete.last as usize];
        }
        debug_assert!(events <= self.buffer.nodes.len());
        self.buffer.swept = self.buffer.nodes.len() as u32;
    }
}

impl<V> Buffer<V> {
    /// Keeps these nodes and their events. Answers where each node is now, and how many events there are.
    fn keep(&mut self, kept: &[bool]) -> (Vec<u32>, usize) {
        let mut used = vec![false; self.events.len()];
        for (node, _) in self.nodes.iter().zip(kept).filter(|(_, kept)| **kept) {
            used[node.event as usize] = true;
        }
        let (nodes, events) = (places(kept), places(&used));
        let (mut at, mut event_at) = (0, 0);
        self.nodes.retain(|_| {
            at += 1;
            kept[at - 1]
        });
        self.events.retain(|_| {
            event_at += 1;
            used[event_at - 1]
        });
        for node in &mut self.nodes {
            node.event = events[node.event as usize];
            node.before = node.before.map(|before| nodes[before as usize]);
        }
        (nodes, self.events.len())
    }

    /// Keeps an event, and answers where.
    pub(super) fn push_event(&mut self, position: u64, time: Timestamp, value: V) -> u32 {
        self.events.push(Event { position, time, value });
        (self.events.len() - 1) as u32
    }

    /// Notes that a step takes an event, and answers where.
    pub(super) fn push_node(&mut self, event: u32, step: usize, before: Option<u32>) -> u32 {
        self.nodes.push(Node { event, step: step as u16, before });
        (self.nodes.len() - 1) as u32
    }

    /// The nodes of a partial match, the last one first.
    pub(super) fn path(&self, last: Option<u32>) -> impl Iterator<Item = &Node> {
        std::iter::successors(last, |at| self.nodes[*at as usize].before).map(|at| &self.nodes[at as usize])
    }

    pub(super) fn event(&self, node: &Node) -> &Event<V> {
        &self.events[node.event as usize]
    }
}

/// Where each will be when only those that are kept are left.
fn places(kept: &[bool]) -> Vec<u32> {
    let mut next = 0;
    let place = |kept: &bool| {
        let place = next;
        next += u32::from(*kept);
        place
    };
    kept.iter().map(place).collect()
}

/// The events of a match, by step: what a function makes a row of, and what an iterative condition sees of a partial match.
pub struct Match<'a, V> {
    pub(super) automaton: &'a Automaton<V>,
    pub(super) buffer: &'a Buffer<V>,
    /// None for the empty beginning of a match.
    pub(super) last: Option<u32>,
}

impl<V> Clone for Match<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Match<'_, V> {}

impl<'a, V> Match<'a, V> {
    /// The events of a step, in order; none if the step was left out, or has not been reached yet. Costs a walk over the whole match.
    ///
    /// # Panics
    /// If the pattern has no step of that name: an answer would be wrong for ever without anybody noticing.
    #[track_caller]
    pub fn events(&self, step: &str) -> Vec<&'a V> {
        let step = self.step(step);
        let mut events: Vec<&V> =
            self.backwards().filter(|(at, _)| *at == step).map(|(_, event)| &event.value).collect();
        events.reverse();
        events
    }

    /// The first event of a step, if there is one. Costs a walk over the whole match.
    ///
    /// # Panics
    /// As [`Self::events`].
    #[track_caller]
    pub fn first(&self, step: &str) -> Option<&'a V> {
        let step = self.step(step);
        self.backwards().filter(|(at, _)| *at == step).last().map(|(_, event)| &event.value)
    }

    /// The last event of a step, if there is one. Costs a walk back to it.
    ///
    /// # Panics
    /// As [`Self::events`].
    #[track_caller]
    pub fn last(&self, step: &str) -> Option<&'a V> {
        let step = self.step(step);
        self.backwards().find(|(at, _)| *at == step).map(|(_, event)| &event.value)
    }

    /// All events in order, with their times and the names of their steps. Costs a walk over the whole match.
    pub fn all(&self) -> Vec<(&'a str, Timestamp, &'a V)> {
        let name = |step: usize| &*self.automaton.steps[step].name;
        let mut all: Vec<_> =
            self.backwards().map(|(step, event)| (name(step), event.time, &event.value)).collect();
        all.reverse();
        all
    }

    /// Steps and events, the last first.
    pub(super) fn backwards(&self) -> impl Iterator<Item = (usize, &'a Event<V>)> + use<'a, V> {
        let buffer = self.buffer;
        buffer.path(self.last).map(move |node| (usize::from(node.step), buffer.event(node)))
    }

    #[track_caller]
    fn step(&self, name: &str) -> usize {
        let steps = &self.automaton.steps;
        let found = steps.iter().position(|step| *step.name == *name);
        found.unwrap_or_else(|| {
            let names: Vec<&str> = steps.iter().map(|step| &*step.name).collect();
            panic!("the pattern has no step `{name}` that takes events, but `{}`", names.join("`, `"))
        })
    }
}
