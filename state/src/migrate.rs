//! From older versions of a state to the present one.
//!
//! 1. A handle has a version ([`Value::version`](crate::Value::version)), and a snapshot keeps that of each of its tables.
//! 2. When a table is opened whose stored version is older, its rows go through the steps that lead to the present one, each from a version to
//!    the next: those in the backend are rewritten in batches, those in deltas as they are replayed.
//! 3. The next snapshot is then a rebase. So all rows of all files of a snapshot have one version, and a step may be taken out of the program
//!    once no checkpoint or savepoint of its version is needed.
//!
//! *Why at once, and not when a row is read:* rows that nobody reads would keep their version for years. Each row would have to carry
//! it, every step would have to be kept for ever, and a mistake in one would show on some record a month later instead of at start. The price
//! is one pass over that table's rows in the backend, at the first start of the new version.

use std::any::{TypeId, type_name};
use std::fmt;
use std::ops::ControlFlow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::{Backend, Batch, successor};
use crate::codec::{self, CodecError};
use crate::error::Result;

/// Rows are rewritten in batches of about this many bytes.
const BATCH: usize = 1 << 20;

type Run = dyn Fn(&[u8], &mut Vec<u8>) -> Result<usize, CodecError> + Send + Sync;

/// A type and what to call it.
#[derive(Clone, Copy)]
struct Named {
    id: TypeId,
    name: &'static str,
}

impl Named {
    fn of<T: 'static>() -> Self {
        Self { id: TypeId::of::<T>(), name: type_name::<T>() }
    }
}

/// One step, from a version to the next.
struct Step {
    from: u32,
    takes: Named,
    gives: Named,
    run: Box<Run>,
}

/// How values of older versions of a state become those of the present one.
///
/// ```
/// use rivermark_state::Migrations;
/// // Version 1 was a number, version 2 a number and a name, version 3 has them the other way round.
/// let migrations = Migrations::new()
///     .from(1, |count: u32| (count, String::new()))
///     .from(2, |(count, name): (u32, String)| (name, u64::from(count)));
/// ```
///
/// Of a `Value` or `Reducing` the value goes through them, of a `List` each element, of a `Map` each value. Keys cannot change: they decide
/// where a row belongs. An old type is declared in the program as it was, under any name: what counts is how serde writes it.
#[derive(Default)]
pub struct Migrations {
    steps: Vec<Step>,
}

impl Migrations {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) const fn none() -> Self {
        Self { steps: Vec::new() }
    }

    /// The step from version `version` to the next one. It must be a pure function: after a crash it runs again.
    #[must_use]
    pub fn from<Old, New>(mut self, version: u32, step: impl Fn(Old) -> New + Send + Sync + 'static) -> Self
    where
        Old: DeserializeOwned + 'static,
        New: Serialize + 'static,
    {
        let run = move |bytes: &[u8], out: &mut Vec<u8>| {
            let (old, used) = codec::decode_prefix::<Old>(bytes)?;
            codec::encode_into(&step(old), out)?;
            Ok(used)
        };
        let (takes, gives) = (Named::of::<Old>(), Named::of::<New>());
        self.steps.push(Step { from: version, takes, gives, run: Box::new(run) });
        self
    }

    /// The steps from version `from` to version `to`, which holds `T`s; or what is wrong with them.
    pub(crate) fn path<T: 'static>(&self, from: u32, to: u32, each: Each) -> Result<Path<'_>, String> {
        let mut steps: Vec<&Step> = Vec::new();
        for version in from..to {
            let mut candidates = self.steps.iter().filter(|step| step.from == version);
            let step = candidates.next().ok_or_else(|| {
                format!("there is no migration from version {version} to {}", u64::from(version) + 1)
            })?;
            if candidates.next().is_some() {
                return Err(format!("there are two migrations from version {version}"));
            }
            if let Some(before) = steps.last().filter(|before| before.gives.id != step.takes.id) {
                return Err(format!(
                    "the migration from version {} gives `{}`, and that from version {version} takes `{}`",
                    before.from, before.gives.name, step.takes.name
                ));
            }
            steps.push(step);
        }
        let wanted = Named::of::<T>();
        match steps.last().filter(|last| last.gives.id != wanted.id) {
            Some(last) => Err(format!(
                "the migration from version {} gives `{}`, and version {to} holds `{}`",
                last.from, last.gives.name, wanted.name
            )),
            None => Ok(Path { steps, each }),
        }
    }
}

impl fmt::Debug for Migrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.steps.iter().map(|step| step.from)).finish()
    }
}

/// What a row's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Each {
    /// One value.
    Value,
    /// Values one after another: a list's chunk.
    Element,
}

/// The steps that a state's rows go through.
pub(crate) struct Path<'a> {
    steps: Vec<&'a Step>,
    each: Each,
}

impl Path<'_> {
    /// What becomes of the bytes of one row.
    pub fn apply(&self, row: &[u8]) -> Result<Vec<u8>, CodecError> {
        let mut bytes = row.to_vec();
        for step in &self.steps {
            bytes = self.step(step, &bytes)?;
        }
        Ok(bytes)
    }

    fn step(&self, step: &Step, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        loop {
            if self.each == Each::Element && rest.is_empty() {
                return Ok(out);
            }
            let used = (step.run)(rest, &mut out)?;
            rest = &rest[used..];
            match self.each {
                Each::Value if rest.is_empty() => return Ok(out),
                // An element without bytes cannot be counted.
                Each::Element if used > 0 => {}
                Each::Value | Each::Element => {
                    return Err(CodecError::Decode {
                        type_name: step.takes.name,
                        length: bytes.len(),
                        reason: format!("only the first {} bytes belong to it", bytes.len() - rest.len()),
                    });
                }
            }
        }
    }

    /// Rewrites the backend's rows of a table.
    pub fn rewrite(
        &self,
        backend: &mut dyn Backend,
        table: u16,
        failed: impl Fn(CodecError) -> crate::StateError,
    ) -> Result<()> {
        let mut from = table.to_be_bytes().to_vec();
        let to = successor(&from).unwrap_or_else(|| vec![u8::MAX; 3]);
        loop {
            let mut batch = Batch::default();
            let mut next = None;
            backend.scan(&from, &to, &mut |key, value| {
                batch.put(key, &self.apply(value).map_err(&failed)?);
                if batch.bytes() < BATCH {
                    return Ok(ControlFlow::Continue(()));
                }
                // The first key behind this one.
                next = Some([key, &[0]].concat());
                Ok(ControlFlow::Break(()))
            })?;
            backend.apply(&batch)?;
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }
}
