//! The times of a layer in the making: real on disk, logical in its canonical tar.
//!
//! For an entry with time m on disk, in order:
//!
//! 0. the same path below has exactly this time (a copy-up that did not touch it): the canonical time of the entry below;
//! 1. some entry of a lower layer has exactly this time (`cp -p`; topmost layer first): that layer's canonical time of m — but not by a
//!    whole second that is only a logical time below;
//! 2. m is not older than a minute before the step's start: the layer's logical time L;
//! 3. m is the time of an entry that the step saw in a mount (`cp -p`), with or without its parts of a second (busybox `cp -a` cuts them
//!    off), or a whole second in which a lower layer's step wrote: L, too. It must be the same whether such a layer was made here or
//!    elsewhere, a second or a day ago, and follow from what is in the step's key, which of a mounted directory says no times;
//! 4. else m itself, in whole seconds: a tool set it on purpose.
//!
//! L is one second after the newest canonical time below, so that layers are in order everywhere, whenever they are built.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::error::Result;
use crate::layer::{EPOCH, Layer, LayerTimes};
use crate::snapshot::options::{Mtimes, PrepareOptions};
use crate::stamp::Stamp;

/// How far file times may lag behind the clock (and what writes whole seconds cuts off), in seconds.
const SLACK: i64 = 60;
/// The longest wait for the file clock: three of the longest ticks there are (100 Hz), nearly.
const LONGEST_WAIT: Duration = Duration::from_millis(12);

/// The logical time of a layer on these.
pub(crate) fn logical_time(lowers: &[Layer], options: &PrepareOptions) -> i64 {
    let below = lowers.iter().filter_map(Layer::newest_time).max();
    let logical = below.map_or(EPOCH, |newest| newest.saturating_add(1).max(EPOCH));
    clamp(options).map_or(logical, |clamp| logical.min(clamp))
}

fn clamp(options: &PrepareOptions) -> Option<i64> {
    options
        .source_date_epoch
        .filter(|_| options.mtimes == Mtimes::Logical)
}

/// The times of one layer in the making.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Bottom first.
    lowers: Vec<Layer>,
    /// What else the step can see.
    mounted: Vec<Layer>,
    /// The times in them, whole and cut off, once somebody has asked.
    mounted_times: Option<HashSet<Stamp>>,
    times: LayerTimes,
    is_real: bool,
    known: HashMap<Stamp, i64>,
}

impl Clock {
    /// Starts the clock of a layer on these layers (bottom first), when a file written now is newer than what they wrote.
    pub(crate) fn start(lowers: &[Layer], options: &PrepareOptions, clock_offset: i64) -> Clock {
        wait_until_after(
            lowers.iter().filter_map(Layer::newest_written).max(),
            clock_offset,
        );
        let start = Stamp::now().plus(clock_offset);
        let is_real = options.mtimes == Mtimes::Real;
        let times = LayerTimes {
            logical: logical_time(lowers, options),
            threshold: (!is_real).then(|| start.sec - SLACK),
            start,
            clamp: clamp(options),
            exceptions: Default::default(),
        };
        Clock {
            lowers: lowers.to_vec(),
            mounted: Vec::new(),
            mounted_times: None,
            times,
            is_real,
            known: HashMap::new(),
        }
    }

    /// The step sees these layers, too, in mounts; they are no part of what its layer lies on.
    pub(crate) fn sees(&mut self, mounted: &[Layer]) {
        self.mounted.extend_from_slice(mounted);
    }

    /// The layer's logical time.
    pub(crate) fn logical_time(&self) -> i64 {
        self.times.logical
    }

    /// No canonical time is later than this.
    pub(crate) fn clamp(&self) -> Option<i64> {
        self.times.clamp
    }

    /// Makes these the layer's times.
    pub(crate) fn take(&mut self, times: LayerTimes) {
        self.times = times;
    }

    /// Whether the layer's step wrote this time, by the threshold alone.
    pub(crate) fn is_logical(&self, on_disk: Stamp) -> bool {
        self.times.is_logical(on_disk)
    }

    /// Makes a time on disk mean its own whole second, whatever the rules say.
    pub(crate) fn keep(&mut self, on_disk: Stamp) {
        self.settle(on_disk, on_disk.sec);
    }

    /// The canonical time of an entry. `below` is what the same path has in the layers below: on disk, and canonical.
    pub(crate) fn canonical(&mut self, on_disk: Stamp, below: Option<(Stamp, i64)>) -> Result<i64> {
        if self.is_real {
            return Ok(on_disk.sec);
        }
        if let Some(&known) = self.known.get(&on_disk) {
            return Ok(known);
        }
        let time = match below {
            Some((same, canonical)) if same == on_disk => canonical,
            _ => match self.copied_from_below(on_disk)? {
                Some(time) => time,
                None if self.is_copied_from_mount(on_disk)? => self.times.logical,
                None if self.is_cut_off(on_disk) => self.times.logical,
                None => self.times.plain(on_disk),
            },
        };
        Ok(self.settle(on_disk, time))
    }

    /// What a whole second becomes on disk that says no more than when the step was: the time at which that began. Else a later step's copy
    /// with its times cut off would mean this layer or its own, as it happens to be in the same second or not.
    pub(crate) fn stamp_instead(&mut self, on_disk: Stamp, canonical: i64) -> Option<Stamp> {
        let is_logical = canonical == self.times.logical && canonical != on_disk.sec;
        if self.is_real || on_disk.nsec != 0 || !is_logical {
            return None;
        }
        // Nothing has that time any more.
        self.times.exceptions.remove(&on_disk);
        let start = self.times.start;
        Some(Stamp::new(start.sec, start.nsec.max(1)))
    }

    /// One time on disk has one meaning in a layer, or its tar could not be made again from tree and record.
    fn settle(&mut self, on_disk: Stamp, time: i64) -> i64 {
        let time = self.times.clamped(time);
        if self.times.plain(on_disk) != time {
            self.times.exceptions.insert(on_disk, time);
        }
        self.known.insert(on_disk, time);
        time
    }

    fn copied_from_below(&self, on_disk: Stamp) -> Result<Option<i64>> {
        for layer in self.lowers.iter().rev() {
            let times = &layer.facts().times;
            if let Some(&time) = times.exceptions.get(&on_disk) {
                return Ok(Some(time));
            }
            if self.may_be_from(layer, on_disk) && layer.has_mtime(on_disk)? {
                return Ok(Some(times.canonical(on_disk)));
            }
        }
        Ok(None)
    }

    /// Whether something in a mount has this time. The trees are walked once, if a time is older than the step.
    fn is_copied_from_mount(&mut self, on_disk: Stamp) -> Result<bool> {
        if self.mounted.is_empty() || self.times.is_logical(on_disk) {
            return Ok(false);
        }
        if self.mounted_times.is_none() {
            let mut times = HashSet::new();
            for layer in &self.mounted {
                for &mtime in layer.mtimes()? {
                    // What the layer has on disk where it was fetched, too.
                    let canonical = layer.facts().times.canonical(mtime);
                    times.extend([mtime, Stamp::new(mtime.sec, 0), Stamp::new(canonical, 0)]);
                }
            }
            self.mounted_times = Some(times);
        }
        Ok(self
            .mounted_times
            .as_ref()
            .is_some_and(|times| times.contains(&on_disk)))
    }

    /// The cheap test, so that trees are walked only where it can matter.
    fn may_be_from(&self, layer: &Layer, on_disk: Stamp) -> bool {
        let facts = layer.facts();
        if facts.times.is_logical(on_disk) {
            return on_disk.nsec != 0
                && facts
                    .window
                    .is_some_and(|(oldest, newest)| oldest <= on_disk && on_disk <= newest);
        }
        // A time both sides keep means the same on both, but where the layer below cut it off.
        let means_the_same = !self.times.is_logical(on_disk) && facts.times.plain(on_disk) == on_disk.sec;
        !means_the_same && facts.newest_on_disk.is_some_and(|newest| on_disk <= newest)
    }

    /// Whether it may be the time of a file below without its parts of a second.
    fn is_cut_off(&self, on_disk: Stamp) -> bool {
        let windows = self.lowers.iter().filter_map(|layer| layer.facts().window);
        on_disk.nsec == 0
            && windows
                .into_iter()
                .any(|(oldest, newest)| (oldest.sec..=newest.sec).contains(&on_disk.sec))
    }

    /// What the layer's record says of its times.
    pub(crate) fn finish(self) -> LayerTimes {
        self.times
    }
}

fn wait_until_after(newest: Option<Stamp>, clock_offset: i64) {
    let step = Duration::from_micros(500);
    let mut waited = Duration::ZERO;
    while waited < LONGEST_WAIT
        && newest.is_some_and(|newest| Stamp::file_clock().plus(clock_offset) <= newest)
    {
        std::thread::sleep(step);
        waited += step;
    }
}
