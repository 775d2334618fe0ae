//! What the panes of one window have to do with each other, told by types: what the rows are depends on it.

use crate::table::Change;
use crate::window::trigger::{Pane, Paned};
use crate::window::{Window, Windowed};

mod sealed {
    pub trait Sealed {}
}

/// What the panes of one window have to do with each other: [`Accumulating`], [`Discarding`] or [`Retracting`]; or that there is but one, as
/// with windows by [count](Counted).
pub trait Panes: sealed::Sealed + Send + Sync + 'static {
    /// What a pane's row is.
    type Row<K: Send + 'static, R: Send + 'static>: Send + 'static;

    /// Whether a pane takes what it tells out of the window.
    #[doc(hidden)]
    const DISCARDS: bool;
    /// Whether a pane takes back what was told before.
    #[doc(hidden)]
    const RETRACTS: bool;
    /// What it is called in a checkpoint.
    #[doc(hidden)]
    const NAME: &'static str;

    /// The row of a pane.
    #[doc(hidden)]
    fn row<K: Send + 'static, R: Send + 'static>(
        key: K,
        window: Window,
        pane: Pane,
        change: Change<R>,
    ) -> Option<Self::Row<K, R>>;
}

/// Each pane has all that its window holds so far: the last one is the result.
pub enum Accumulating {}

/// Each pane has what has come since the one before: together they are the result.
pub enum Discarding {}

/// Each pane has all so far, and what was told before, which it takes back: a [`Change`], from which tables are made.
pub enum Retracting {}

/// Windows by count, which give one row each, without panes.
pub enum Counted {}

impl sealed::Sealed for Accumulating {}
impl sealed::Sealed for Discarding {}
impl sealed::Sealed for Retracting {}
impl sealed::Sealed for Counted {}

impl Panes for Accumulating {
    type Row<K: Send + 'static, R: Send + 'static> = Paned<K, R>;
    const DISCARDS: bool = false;
    const RETRACTS: bool = false;
    const NAME: &'static str = "accumulating panes";

    fn row<K: Send + 'static, R: Send + 'static>(
        key: K,
        window: Window,
        pane: Pane,
        change: Change<R>,
    ) -> Option<Paned<K, R>> {
        Some(Paned { key, window, pane, value: change.into_after()? })
    }
}

impl Panes for Discarding {
    type Row<K: Send + 'static, R: Send + 'static> = Paned<K, R>;
    const DISCARDS: bool = true;
    const RETRACTS: bool = false;
    const NAME: &'static str = "discarding panes";

    fn row<K: Send + 'static, R: Send + 'static>(
        key: K,
        window: Window,
        pane: Pane,
        change: Change<R>,
    ) -> Option<Paned<K, R>> {
        Accumulating::row(key, window, pane, change)
    }
}

impl Panes for Retracting {
    type Row<K: Send + 'static, R: Send + 'static> = Paned<K, Change<R>>;
    const DISCARDS: bool = false;
    const RETRACTS: bool = true;
    const NAME: &'static str = "retracting panes";

    fn row<K: Send + 'static, R: Send + 'static>(
        key: K,
        window: Window,
        pane: Pane,
        change: Change<R>,
    ) -> Option<Paned<K, Change<R>>> {
        Some(Paned { key, window, pane, value: change })
    }
}

impl Panes for Counted {
    type Row<K: Send + 'static, R: Send + 'static> = Windowed<K, R>;
    const DISCARDS: bool = false;
    const RETRACTS: bool = false;
    const NAME: &'static str = "whole windows";

    fn row<K: Send + 'static, R: Send + 'static>(
        key: K,
        window: Window,
        _pane: Pane,
        change: Change<R>,
    ) -> Option<Windowed<K, R>> {
        Some(Windowed { key, window, value: change.into_after()? })
    }
}
