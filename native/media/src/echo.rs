//! Whether what comes from the caller is the echo of what we play: a telephone on its loudspeaker sends our own speech
//! back, and the receptionist must not interrupt itself.
//!
//! It is a test, not a canceller: speech energy in bands, every 10 ms, of both directions. What comes is called an echo
//! on positive evidence alone, of which there are two kinds:
//!
//! * it is like what was played up to half a second before: what changes in the bands correlates, at some delay;
//! * the path is known, that is its delay (where the two agree best over seconds) and its gain in each band (an upper
//!   quantile, learned while we speak), and nothing came that the path, the tail of a room, a share for the
//!   loudspeaker's distortion, and noise do not explain. What exceeds all that in several bands for several frames is
//!   the caller.
//!
//! Rules:
//!
//! * while we have played nothing for half a second, or nothing audible comes: [`Verdict::Clear`];
//! * without evidence of an echo: [`Verdict::Clear`]. A caller who is not heard is worse than a pause that is taken
//!   back, so the verdict is asked for when speech is certain (100 ms), and again while it goes on;
//! * silence costs next to nothing: there are no spectra while we are silent, or while nothing audible comes;
//! * the state is of fixed size, and nothing is allocated after [`EchoGuard::new`].

mod likeness;
mod line;
mod path;
mod spectrum;

use likeness::{LAGS, Likeness};
use line::{KEPT, Line};
use path::EchoPath;
use spectrum::{BANDS, Bands, SPECTRUM};

/// The rate of both directions.
pub const ECHO_RATE_HZ: u32 = 16_000;
/// The tail of a room with a reverberation time of 0.4 s loses 1.5 dB in 10 ms.
const TAIL: f32 = 0.708;
/// Energy per sample above which we play something (-62 dBov), and above which something audible comes (-65 dBov).
const PLAYING: f32 = 700.0;
const AUDIBLE: f32 = 300.0;
/// Hops of silence after which nothing audible comes.
const QUIET: usize = 10;
/// Hops between looks at the noise while we are silent.
const NOISE_HOPS: usize = 8;
/// What a band must have above what is explained (3 dB), how many bands, how many hops of how many.
const MARGIN: f32 = 2.0;
const BANDS_ABOVE: usize = 2;
const HOPS_ABOVE: u32 = 4;
const HOPS: u32 = 10;
/// A correlation over 2.5 s that is none by chance: the less there is to compare, in hops of speech, the more it takes.
const AGREEMENT: f32 = 0.2;
const AGREEMENT_HOPS: f32 = 16.0;
const EVIDENCE: f32 = 80.0;
/// The same over 330 ms, at any delay, and at the one that was found.
const LIKE: f32 = 0.5;
const LIKE_THERE: f32 = 0.22;

/// What the last hops of the caller are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing says that it is an echo: speech is the caller's.
    Clear,
    /// Explained by what we played.
    Echo,
    /// The caller speaks while we do, over an echo.
    DoubleTalk,
}

/// The echo guard of one call.
#[derive(Debug)]
pub struct EchoGuard {
    played: Line,
    came: Line,
    /// Hops of what was played that went with what came, and of them, those that were looked at.
    now: usize,
    looked: usize,
    /// The hop after the last in which we played something.
    playing_until: usize,
    /// What was played with its tail, by hop.
    tails: Box<[Bands; KEPT]>,
    /// Hops without anything audible, and hops that were not looked at.
    quiet: usize,
    skipped: usize,
    came_smooth: Bands,
    noise: Bands,
    likeness: Likeness,
    lag: Option<usize>,
    path: EchoPath,
    /// Hops above what is explained, the last in bit 0.
    above: u32,
    verdict: Verdict,
}

impl EchoGuard {
    /// Nothing was heard or played.
    pub fn new() -> Self {
        Self {
            played: Line::new(),
            came: Line::new(),
            now: 0,
            looked: 0,
            playing_until: 0,
            tails: Box::new([[0.0; BANDS]; KEPT]),
            quiet: 0,
            skipped: 0,
            came_smooth: [0.0; BANDS],
            noise: [AUDIBLE; BANDS],
            likeness: Likeness::new(),
            lag: None,
            path: EchoPath::unknown(),
            above: 0,
            verdict: Verdict::Clear,
        }
    }

    /// What we played, silence included, 16 kHz: the frame of each tick, before the captured audio of that tick.
    pub fn reference(&mut self, mut pcm: &[i16]) {
        while !pcm.is_empty() {
            let (later, energy) = self.played.push(pcm);
            pcm = later;
            if energy.is_some_and(|energy| energy > PLAYING) {
                self.playing_until = self.played.count;
            }
        }
    }

    /// What came from the caller, 16 kHz, without gaps.
    pub fn captured(&mut self, mut pcm: &[i16]) {
        while !pcm.is_empty() {
            let (later, energy) = self.came.push(pcm);
            pcm = later;
            if let Some(energy) = energy {
                self.step();
                self.judge(energy);
            }
        }
    }

    /// Of the last 100 ms captured.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The delay of the echo in milliseconds, network included, where one was found.
    pub fn delay_ms(&self) -> Option<u32> {
        self.lag.map(|lag| lag as u32 * 10)
    }

    /// The two directions are counted apart; where the counts have parted, that of what was played leads.
    fn step(&mut self) {
        self.now = (self.now + 1).min(self.played.count);
        if self.now + 15 < self.played.count {
            self.now = self.played.count;
        }
    }

    fn judge(&mut self, energy: f32) {
        self.quiet = if energy > AUDIBLE {
            0
        } else {
            self.quiet.saturating_add(1)
        };
        let is_playing = self.playing_until > 0 && self.now < self.playing_until + LAGS;
        if !is_playing || self.quiet > QUIET {
            self.above = 0;
            self.skipped = self.skipped.saturating_add(1);
            self.verdict = Verdict::Clear;
            if !is_playing && self.came.count.is_multiple_of(NOISE_HOPS) {
                let (came, _) =
                    SPECTRUM.bands(&self.came.window(self.came.count - 1), &[0.0; spectrum::WINDOW]);
                self.follow_noise(&came, 1.1);
            }
            return;
        }
        let came = self.look();
        for (smooth, &band) in self.came_smooth.iter_mut().zip(&came) {
            *smooth += 0.5 * (band - *smooth);
        }
        let came = self.came_smooth;
        self.follow_noise(&came, 1.003);
        self.find_delay();
        self.verdict = self.compare(&came);
    }

    /// The spectra up to now, of both directions.
    fn look(&mut self) -> Bands {
        let hop = self.now.saturating_sub(1);
        let oldest = self.now.saturating_sub(LAGS + 1);
        if self.looked < oldest {
            self.likeness.played_gap(self.looked, oldest);
            self.tails[(oldest + KEPT - 1) % KEPT] = [0.0; BANDS];
            self.looked = oldest;
        }
        if self.skipped > 0 {
            self.likeness.came_nothing(self.skipped);
            self.skipped = 0;
        }
        while self.looked + 2 < self.now {
            let windows = [0, 1].map(|next| self.played.window(self.looked + next));
            let (first, second) = SPECTRUM.bands(&windows[0], &windows[1]);
            self.keep(&first);
            self.keep(&second);
        }
        if self.looked + 1 < self.now {
            let window = self.played.window(self.looked);
            let (first, _) = SPECTRUM.bands(&window, &window);
            self.keep(&first);
        }
        let windows = (self.played.window(hop), self.came.window(self.came.count - 1));
        let (played, came) = SPECTRUM.bands(&windows.0, &windows.1);
        if self.looked < self.now {
            self.keep(&played);
        }
        self.likeness.came(hop, &came);
        came
    }

    fn keep(&mut self, played: &Bands) {
        let hop = self.looked;
        let before = self.tails[(hop + KEPT - 1) % KEPT];
        self.tails[hop % KEPT] = std::array::from_fn(|band| played[band] + TAIL * before[band]);
        self.likeness.played(hop, played);
        self.looked += 1;
    }

    fn find_delay(&mut self) {
        let hop = self.now.saturating_sub(1);
        let best = self.likeness.slow(hop, 0..LAGS);
        let is_new = self.lag.is_none_or(|lag| {
            lag.abs_diff(best.lag) > 1 && best.score > 1.2 * self.likeness.slow(hop, lag..lag + 1).score
        });
        let evidence = self.likeness.evidence();
        if is_new && evidence > EVIDENCE && best.score > AGREEMENT + AGREEMENT_HOPS / evidence {
            self.lag = Some(best.lag);
            self.path = EchoPath::unknown();
        }
    }

    fn compare(&mut self, came: &Bands) -> Verdict {
        let hop = self.now.saturating_sub(1);
        let mut is_like = self.likeness.fast(hop, 0..LAGS).score > LIKE;
        let Some(lag) = self.lag else {
            return if is_like { Verdict::Echo } else { Verdict::Clear };
        };
        let near = lag.saturating_sub(1)..(lag + 2).min(LAGS);
        is_like |= self.likeness.fast(hop, near).score > LIKE_THERE;
        let played = self.greatest(lag.saturating_sub(2), (lag + 2).min(LAGS - 1));
        let explained = self.path.explains(&played);
        let above =
            (0..BANDS).filter(|&band| came[band] > MARGIN * (explained[band] + 2.0 * self.noise[band]));
        let is_above = above.count() >= BANDS_ABOVE;
        self.above = (self.above << 1 | u32::from(is_above)) & ((1 << HOPS) - 1);
        if self.above.count_ones() < 2 {
            self.path.learn(&played, came, &self.noise);
        }
        match self.above.count_ones() {
            HOPS_ABOVE.. => Verdict::DoubleTalk,
            _ if is_like => Verdict::Echo,
            _ if (0..BANDS).any(|band| came[band] > 8.0 * self.noise[band]) => Verdict::DoubleTalk,
            _ => Verdict::Clear,
        }
    }

    /// The greatest of what was played in a range of lags, per band.
    fn greatest(&self, first: usize, last: usize) -> Bands {
        let hops = (first..=last).filter_map(|lag| self.now.checked_sub(lag + 1));
        hops.fold([0.0; BANDS], |most, hop| {
            std::array::from_fn(|band| most[band].max(self.tails[hop % KEPT][band]))
        })
    }

    /// The least that comes, rising by that factor at a time.
    fn follow_noise(&mut self, came: &Bands, rise: f32) {
        for (noise, &came) in self.noise.iter_mut().zip(came) {
            *noise = if came < *noise {
                *noise * 0.8 + came * 0.2
            } else {
                *noise * rise
            }
            .clamp(1.0, 1e6);
        }
    }
}

impl Default for EchoGuard {
    fn default() -> Self {
        Self::new()
    }
}
