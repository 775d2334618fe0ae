//! Sinks: what a connector implements to be written exactly once, and the operator that writes it.
//!
//! A sink has two halves, as two-phase commit has two parties:
//! 1. a [`SinkWriter`] on each worker takes records, and at a barrier *prepares*: what it has taken since the last barrier is
//!    complete but stays invisible, and a token names it;
//! 2. one [`Committer`] for the whole sink makes what tokens name durable before the checkpoint that holds them is stored, unless preparing
//!    has done so, and makes it visible afterwards. Committing is idempotent, since after a crash the tokens of the restored checkpoint are
//!    committed again.
//!
//! A start goes: [`Committer::recover`] with a generation higher than any before (older writers and committers are fenced, the
//! restored checkpoint's tokens committed, everything else that was prepared thrown away), then the writers are opened.

pub use crate::batch::{Batch, Origin, Stamp};
use crate::context::{BlameCell, OperatorMetrics, TaskContext, TokenPart};
use crate::edge::{Operator, Signal};
use crate::error::{BoxError, Error, Result};
use crate::plan::TaskBuilder;
use crate::source::ConnectorContext;
pub use rivermark_checkpoint::Epoch;
use std::marker::PhantomData;
use std::sync::Arc;

/// Which part of a sink a writer or committer is.
pub struct SinkContext<'a> {
    /// The flow, the sink's name in it, and what the engine offers.
    pub connector: ConnectorContext<'a>,
    /// The writer's worker, from 0; 0 for the committer.
    pub worker: usize,
    /// Which attempt of the job this is. Higher than any before; a writer or committer of a lower one must fail.
    pub generation: u64,
}

/// What a version of a flow writes under a name that stays while versions change: the name is the alias, and what the version writes is the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionedOutput {
    /// The name that readers know.
    pub alias: String,
    /// The topic of the log that this version writes.
    pub topic: String,
    /// Whether a row replaces the one before it of its key, and one without a value ends the key; otherwise rows are only ever added.
    pub upserts: bool,
}

/// The topic of the embedded log that a sink writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenTopic {
    /// The topic.
    pub topic: String,
    /// What the ids of the transactions begin with in which the sink writes.
    pub transactions: String,
}

/// An output of a flow.
pub trait Sink<T>: Send + Sync + 'static {
    /// What takes records, one a worker.
    type Writer: SinkWriter<T> + 'static;

    /// Opens a worker's writer. Called after [`Committer::recover`].
    fn writer(&self, cx: &SinkContext<'_>) -> Result<Self::Writer, BoxError>;

    /// Opens the sink's committer.
    fn committer(&self, cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError>;

    /// What the given version of the flow writes, if readers are to follow versions through an alias. Default: it has none.
    fn versioned_output(&self, _version: u64) -> Option<VersionedOutput> {
        None
    }

    /// The topic of the embedded log that the sink writes, if that is what it writes and all that it writes. Such a sink can be audited: it is
    /// opened in another run of the flow, with another log among the resources of its context, and must write to that one. (In a run that
    /// explains rows there is a [`Trace`](crate::trace::Trace), too.) Default: it
    /// writes something else, and an audit does not open it.
    fn written_topic(&self, _cx: &ConnectorContext<'_>) -> Option<WrittenTopic> {
        None
    }
}

/// Takes records on one worker.
pub trait SinkWriter<T> {
    /// Takes all records out of `batch`.
    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), BoxError>;

    /// Completes everything since the last barrier and keeps it invisible. The token names it for the committer; `None` if
    /// there is nothing to commit. Records after this call belong to the next epoch.
    ///
    /// It is called in a worker's step, and what waits here makes every result late. What takes a disk or a network is better left to
    /// [`Committer::sync`].
    fn prepare(&mut self, epoch: Epoch) -> Result<Option<Vec<u8>>, BoxError>;

    /// How many bytes have been written since the writer was opened, if it counts them.
    fn bytes(&self) -> u64 {
        0
    }
}

/// Why a commit failed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It certainly did not happen and never will by this committer: it is fenced, or the prepared data is gone.
    #[error("not committed: {0}")]
    Refused(BoxError),
    /// It may have happened, or has not but may yet: a disk was full, a connection broke. Committing again is safe, and is what the engine
    /// does.
    #[error("may or may not be committed: {0}")]
    Unknown(BoxError),
}

/// Makes prepared tokens visible. One for a whole sink, called by the job's driver.
pub trait Committer: Send {
    /// Takes the sink over for this generation: fences older ones, commits `tokens` (those of the checkpoint the job starts
    /// from; they may have been committed already), and throws away whatever else was prepared. Called once, first.
    fn recover(&mut self, tokens: &[Vec<u8>]) -> Result<(), CommitError>;

    /// Makes durable what the tokens name: a checkpoint that holds them is about to be stored, and whatever happens then, they can be
    /// committed. Called by the job's driver before each checkpoint is stored; idempotent. Default: nothing, for a sink whose
    /// [`SinkWriter::prepare`] has done so. Who wraps a committer has to pass this on.
    fn sync(&mut self, _tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        Ok(())
    }

    /// Makes the tokens of a stored epoch visible. Idempotent. What was prepared for an epoch that was given up comes with a later one:
    /// only [`Committer::recover`] throws anything away.
    fn commit(&mut self, epoch: Epoch, tokens: &[Vec<u8>]) -> Result<(), CommitError>;
}

/// How the engine opens a sink's committer without knowing the sink's types.
pub trait ErasedCommitter: Send + Sync {
    /// See [`Sink::committer`].
    fn open(&self, cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError>;
    /// See [`Sink::versioned_output`].
    fn versioned_output(&self, version: u64) -> Option<VersionedOutput>;
    /// See [`Sink::written_topic`].
    fn written_topic(&self, cx: &ConnectorContext<'_>) -> Option<WrittenTopic>;
}

/// Opens the committer of a typed sink.
pub(crate) struct CommitterOf<T, S> {
    pub(crate) sink: Arc<S>,
    pub(crate) records: PhantomData<fn(T)>,
}

impl<T: 'static, S: Sink<T>> ErasedCommitter for CommitterOf<T, S> {
    fn open(&self, cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError> {
        self.sink.committer(cx)
    }

    fn versioned_output(&self, version: u64) -> Option<VersionedOutput> {
        self.sink.versioned_output(version)
    }

    fn written_topic(&self, cx: &ConnectorContext<'_>) -> Option<WrittenTopic> {
        self.sink.written_topic(cx)
    }
}

/// Writes a stream to a sink's writer.
pub(crate) struct Writing<W> {
    name: Arc<str>,
    blame: BlameCell,
    /// `None` where the sink is not to be opened.
    writer: Option<W>,
    metrics: Arc<OperatorMetrics>,
    bytes: u64,
}

impl<W> Writing<W> {
    /// Opens the writer of the worker that is being built.
    pub(crate) fn open<T, S: Sink<T, Writer = W>>(builder: &TaskBuilder<'_>, sink: &S) -> Result<Self> {
        let (name, environment) = (builder.name(), builder.environment());
        let worker = environment.worker;
        let open = |resources| {
            let connector =
                ConnectorContext { flow: builder.flow(), version: builder.version(), name: &name, resources };
            let context = SinkContext { connector, worker, generation: environment.generation };
            let opened = sink.writer(&context);
            opened.map_err(|e| Error::sink(&name, format!("opening the writer of worker {worker}"), e))
        };
        let writer = environment.resources.of_sink(&name).map(open).transpose()?;
        Ok(Writing { blame: builder.blame(), metrics: builder.metrics(), name, writer, bytes: 0 })
    }
}

impl<T, W: SinkWriter<T>> Operator<T> for Writing<W> {
    fn on_batch(&mut self, batch: &mut Batch<T>, _cx: &mut TaskContext<'_>) -> Result<()> {
        let Some(writer) = &mut self.writer else {
            batch.clear();
            return Ok(());
        };
        // A panic of the writer is about one of these; which, only it could say.
        let mut watch = self.blame.watch(&self.name);
        batch.stamps().first().into_iter().for_each(|first| watch.at(first));
        let written = writer.write(batch);
        drop(watch);
        written.map_err(|e| Error::sink(&self.name, "writing records", e))?;
        let bytes = writer.bytes();
        self.metrics.add_bytes(bytes - self.bytes);
        self.bytes = bytes;
        Ok(())
    }

    fn on_signal(&mut self, signal: Signal, cx: &mut TaskContext<'_>) -> Result<()> {
        match signal {
            Signal::Barrier(epoch) => {
                let token = self.writer.as_mut().map(|writer| writer.prepare(epoch)).transpose();
                let token =
                    token.map_err(|e| Error::sink(&self.name, format!("preparing epoch {epoch}"), e))?;
                cx.parts.tokens.extend(token.flatten().map(|token| TokenPart {
                    sink: Arc::clone(&self.name),
                    epoch,
                    token,
                }));
                cx.parts.ends_reached += 1;
            }
            Signal::Watermark(watermark) => self.metrics.set_watermark(watermark),
            Signal::Idle | Signal::Active | Signal::Partition(_) | Signal::End => {}
        }
        Ok(())
    }

    fn flush(&mut self, _cx: &mut TaskContext<'_>) -> Result<()> {
        Ok(())
    }
}
