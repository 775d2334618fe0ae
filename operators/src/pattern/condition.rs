//! Conditions: which events a step takes.

use super::Match;
use std::sync::Arc;

type Holds<V> = dyn Fn(&V, &Match<'_, V>) -> bool + Send + Sync;

/// What an event must be like. Without any, every event will do.
pub(super) struct Condition<V> {
    holds: Option<Arc<Holds<V>>>,
    sees_earlier: bool,
}

impl<V> Clone for Condition<V> {
    fn clone(&self) -> Self {
        Condition { holds: self.holds.clone(), sees_earlier: self.sees_earlier }
    }
}

impl<V: 'static> Condition<V> {
    /// Every event.
    pub(super) fn any() -> Self {
        Condition { holds: None, sees_earlier: false }
    }

    /// A condition on the event alone.
    pub(super) fn simple(holds: impl Fn(&V) -> bool + Send + Sync + 'static) -> Self {
        Condition { holds: Some(Arc::new(move |event, _| holds(event))), sees_earlier: false }
    }

    /// A condition on the event and on what was matched before it.
    pub(super) fn iterative(holds: impl Fn(&V, &Match<'_, V>) -> bool + Send + Sync + 'static) -> Self {
        Condition { holds: Some(Arc::new(holds)), sees_earlier: true }
    }

    /// Whether every event will do.
    pub(super) fn is_any(&self) -> bool {
        self.holds.is_none()
    }

    /// Whether it depends on what was matched before: if not, it holds for an event or not, whatever the partial match.
    pub(super) fn sees_earlier(&self) -> bool {
        self.sees_earlier
    }

    pub(super) fn and(self, other: Self) -> Self {
        let sees_earlier = self.sees_earlier || other.sees_earlier;
        let holds: Option<Arc<Holds<V>>> = match (self.holds, other.holds) {
            (Some(one), Some(two)) => {
                Some(Arc::new(move |event, so_far| one(event, so_far) && two(event, so_far)))
            }
            (one, two) => one.or(two),
        };
        Condition { holds, sees_earlier }
    }

    pub(super) fn or(self, other: Self) -> Self {
        let sees_earlier = self.sees_earlier || other.sees_earlier;
        let holds: Option<Arc<Holds<V>>> = match (self.holds, other.holds) {
            (Some(one), Some(two)) => {
                Some(Arc::new(move |event, so_far| one(event, so_far) || two(event, so_far)))
            }
            _ => None,
        };
        Condition { holds, sees_earlier }
    }

    pub(super) fn holds(&self, event: &V, so_far: &Match<'_, V>) -> bool {
        self.holds.as_ref().is_none_or(|holds| holds(event, so_far))
    }
}
