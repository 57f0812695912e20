//! Whether what comes from the caller is the echo of what we play: a telephone on its loudspeaker sends our own speech
//! back, and the receptionist must not interrupt itself.
//!
//! It is a test, not a canceller: speech energy in bands, every 10 ms, of both directions. What comes back is explained by
//! what was played up to half a second before, by the gain of the path in each band (an upper quantile, learned while
//! we speak), by the tail of a room, by a share for the loudspeaker's distortion, and by noise. The delay is where the
//! two envelopes agree best. What exceeds all that in several bands for several frames is the caller.
//!
//! Rules:
//!
//! * while we have played nothing for half a second: [`Verdict::Clear`];
//! * a path that is not yet known is taken to be as loud as a telephone can be: for the first two seconds of our speech in a
//!   call, only a caller louder than the echo of that path is [`Verdict::DoubleTalk`];
//! * the state is of fixed size, and nothing is allocated after [`EchoGuard::new`].

mod spectrum;

use spectrum::{BANDS, HOP, Spectrum};

/// The rate of both directions.
pub const ECHO_RATE_HZ: u32 = 16_000;
/// Frames of 10 ms: the longest delay.
const LAGS: usize = 52;
/// Frames of the reference that are kept.
const KEPT: usize = 128;
/// The tail of a room with a reverberation time of 0.4 s loses 1.5 dB in 10 ms.
const TAIL: f32 = 0.708;
/// The share of the whole echo that distortion and coding put into every band: -22 dB.
const LEAK: f32 = 0.006;
/// Energy per sample below which we play nothing.
const SILENCE: f32 = 400.0;
/// The gain of an unknown path, of a path without echo, in dB against the tail-smoothed reference.
const GAIN_UNKNOWN_DB: f32 = 0.0;
const GAIN_NONE_DB: f32 = -55.0;
/// The quantile of the learned gain, and how fast it is followed.
const QUANTILE: f32 = 0.98;
const PACE_DB: f32 = 0.6;
/// Active frames until a path is known.
const LEARNING: u32 = 180;
/// The same for the path whose delay is not known.
const LEARNING_ANY: u32 = 250;
/// Frames that say something about a band, until that band is known.
const BAND_LEARNING: u32 = 40;
/// What a band must have above what is explained, how many bands, how many frames of how many.
const MARGIN_DB: f32 = 3.0;
const BANDS_ABOVE: u32 = 2;
const FRAMES_ABOVE: u32 = 4;
const FRAMES: u32 = 10;
/// A correlation of envelopes that is none by chance.
const AGREEMENT: f32 = 0.35;
/// The energy of so many frames of speech in its pattern.
const EVIDENCE: f32 = 40.0 * BANDS as f32;

/// What the last frames of the caller are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// We play nothing, or nothing audible comes back: speech is the caller's.
    Clear,
    /// Explained by what we played.
    Echo,
    /// The caller speaks while we do.
    DoubleTalk,
}

/// A path from what we played to what comes back, per band.
#[derive(Debug, Clone, Copy)]
struct Path {
    /// While it is learned: the greatest so far. Then the quantile.
    gain_db: [f32; BANDS],
    /// The loudest that was played of late.
    peak: [f32; BANDS],
    /// Frames that said something about the band.
    learned: [u32; BANDS],
    frames: u32,
    /// How many make the path known.
    needed: u32,
}

impl Path {
    fn unknown(needed: u32) -> Self {
        Self {
            gain_db: [GAIN_NONE_DB; BANDS],
            peak: [0.0; BANDS],
            learned: [0; BANDS],
            frames: 0,
            needed,
        }
    }

    fn explains(&self, played: &[f32; BANDS]) -> [f32; BANDS] {
        let mut echo: [f32; BANDS] = std::array::from_fn(|band| {
            let is_known = self.frames >= self.needed && self.learned[band] >= BAND_LEARNING;
            let gain_db = if is_known {
                self.gain_db[band]
            } else {
                GAIN_UNKNOWN_DB
            };
            power(gain_db) * played[band]
        });
        let leak = echo.iter().sum::<f32>() * LEAK;
        for energy in &mut echo {
            *energy += leak;
        }
        echo
    }

    fn learn(&mut self, played: &[f32; BANDS], came: &[f32; BANDS], noise: &[f32; BANDS]) {
        self.frames = self.frames.saturating_add(1);
        for band in 0..BANDS {
            self.peak[band] = (self.peak[band] * 0.98).max(played[band]);
            // What is loud says what the path does; the end of a tail says what the room does.
            if played[band] < (SILENCE / 4.0).max(self.peak[band] / 20.0) {
                continue;
            }
            let echo_db = decibel((came[band] - 2.0 * noise[band]).max(0.0) / played[band]);
            let gain_db = &mut self.gain_db[band];
            *gain_db = if self.learned[band] < BAND_LEARNING {
                gain_db.max(echo_db)
            } else if echo_db > *gain_db {
                *gain_db + QUANTILE * PACE_DB
            } else {
                *gain_db + (QUANTILE - 1.0) * PACE_DB
            }
            .clamp(GAIN_NONE_DB, GAIN_UNKNOWN_DB + 6.0);
            self.learned[band] = self.learned[band].saturating_add(1);
        }
    }
}

/// The echo guard of one call.
#[derive(Debug)]
pub struct EchoGuard {
    played: Spectrum,
    came: Spectrum,
    /// Of the reference: with its tail, and the pattern whose correlation gives the delay. Rings, by frame.
    tails: Box<[[f32; BANDS]; KEPT]>,
    patterns: Box<[[f32; BANDS]; KEPT]>,
    played_frames: usize,
    came_frames: usize,
    played_mean: [f32; BANDS],
    came_mean: [f32; BANDS],
    came_smooth: [f32; BANDS],
    noise: [f32; BANDS],
    /// Correlation by lag, and the energies of the patterns.
    agreement: [f32; LAGS],
    played_energy: [f32; LAGS],
    came_energy: f32,
    lag: Option<usize>,
    /// By the greatest of all lags, and by the one that was found.
    any: Path,
    found: Path,
    /// Frames above what is explained, the last in bit 0.
    above: u32,
    verdict: Verdict,
}

impl EchoGuard {
    /// Nothing was heard or played.
    pub fn new() -> Self {
        Self {
            played: Spectrum::new(),
            came: Spectrum::new(),
            tails: Box::new([[0.0; BANDS]; KEPT]),
            patterns: Box::new([[0.0; BANDS]; KEPT]),
            played_frames: 0,
            came_frames: 0,
            played_mean: [(SILENCE / 4.0).ln(); BANDS],
            came_mean: [(SILENCE / 4.0).ln(); BANDS],
            came_smooth: [0.0; BANDS],
            noise: [SILENCE; BANDS],
            agreement: [0.0; LAGS],
            played_energy: [0.0; LAGS],
            came_energy: 0.0,
            lag: None,
            any: Path::unknown(LEARNING_ANY),
            found: Path::unknown(LEARNING),
            above: 0,
            verdict: Verdict::Clear,
        }
    }

    /// What we played, silence included, 16 kHz: the frame of each tick, before the captured audio of that tick.
    pub fn reference(&mut self, pcm: &[i16]) {
        for piece in pcm.chunks(HOP) {
            if let Some(bands) = self.played.push(piece) {
                self.keep(&bands);
            }
        }
    }

    /// What came from the caller, 16 kHz, without gaps.
    pub fn captured(&mut self, pcm: &[i16]) {
        for piece in pcm.chunks(HOP) {
            if let Some(bands) = self.came.push(piece) {
                self.judge(&bands);
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

    fn keep(&mut self, bands: &[f32; BANDS]) {
        let before = self.tails[(self.played_frames + KEPT - 1) % KEPT];
        let place = self.played_frames % KEPT;
        self.tails[place] = std::array::from_fn(|band| bands[band] + TAIL * before[band]);
        self.patterns[place] = pattern(bands, &mut self.played_mean);
        self.played_frames += 1;
    }

    fn judge(&mut self, bands: &[f32; BANDS]) {
        self.came_frames += 1;
        // The two directions are counted apart; where the counts have parted, the later one leads.
        if self.came_frames.abs_diff(self.played_frames) > 15 {
            self.came_frames = self.played_frames;
        }
        for (smooth, &band) in self.came_smooth.iter_mut().zip(bands) {
            *smooth += 0.5 * (band - *smooth);
        }
        let came = self.came_smooth;
        let any = self.greatest(0, LAGS - 1);
        let is_playing = any.iter().sum::<f32>() > SILENCE * BANDS as f32;
        self.follow_noise(&came, is_playing);
        if !is_playing {
            self.above = 0;
            self.verdict = Verdict::Clear;
            return;
        }
        self.find_delay(bands);
        let found = self
            .lag
            .map(|lag| self.greatest(lag.saturating_sub(2), (lag + 2).min(LAGS - 1)));
        let explained = match found {
            Some(found) if self.found.frames >= LEARNING => self.found.explains(&found),
            _ => self.any.explains(&any),
        };
        let margin = power(MARGIN_DB);
        let above =
            (0..BANDS).filter(|&band| came[band] > margin * (explained[band] + 2.0 * self.noise[band]));
        let is_above = above.count() as u32 >= BANDS_ABOVE;
        self.above = (self.above << 1 | u32::from(is_above)) & ((1 << FRAMES) - 1);
        if self.above.count_ones() < 2 {
            self.any.learn(&any, &came, &self.noise);
            if let Some(found) = found {
                self.found.learn(&found, &came, &self.noise);
            }
        }
        let audible = (0..BANDS).any(|band| came[band] > 4.0 * self.noise[band]);
        self.verdict = match self.above.count_ones() {
            FRAMES_ABOVE.. => Verdict::DoubleTalk,
            _ if audible => Verdict::Echo,
            _ => Verdict::Clear,
        };
    }

    fn frame_at(&self, lag: usize) -> Option<usize> {
        let frame = self.came_frames.min(self.played_frames).checked_sub(lag + 1)?;
        (frame + KEPT > self.played_frames).then_some(frame % KEPT)
    }

    /// The greatest of what was played in a range of lags, per band.
    fn greatest(&self, first: usize, last: usize) -> [f32; BANDS] {
        let frames = (first..=last).filter_map(|lag| self.frame_at(lag));
        frames.fold([0.0; BANDS], |most, frame| {
            std::array::from_fn(|band| most[band].max(self.tails[frame][band]))
        })
    }

    fn find_delay(&mut self, bands: &[f32; BANDS]) {
        const FORGET: f32 = 0.996;
        let came = pattern(bands, &mut self.came_mean);
        self.came_energy = self.came_energy * FORGET + dot(&came, &came);
        for lag in 0..LAGS {
            let Some(frame) = self.frame_at(lag) else { continue };
            let played = &self.patterns[frame];
            self.agreement[lag] = self.agreement[lag] * FORGET + dot(&came, played);
            self.played_energy[lag] = self.played_energy[lag] * FORGET + dot(played, played);
        }
        let score =
            |lag: usize| self.agreement[lag] / (self.came_energy * self.played_energy[lag]).sqrt().max(1.0);
        let best = (0..LAGS)
            .max_by(|&a, &b| score(a).total_cmp(&score(b)))
            .unwrap_or(0);
        let is_new = self
            .lag
            .is_none_or(|lag| lag.abs_diff(best) > 1 && score(best) > 1.2 * score(lag));
        if score(best) > AGREEMENT && is_new && self.came_energy > EVIDENCE {
            self.lag = Some(best);
            self.found = Path::unknown(LEARNING);
        }
    }

    /// The least that comes, rising by 3 dB in a second; in our pauses faster.
    fn follow_noise(&mut self, came: &[f32; BANDS], is_playing: bool) {
        let rise = if is_playing { 1.003 } else { 1.01 };
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

/// What changes in the bands: logarithms against their mean over a second.
fn pattern(bands: &[f32; BANDS], mean: &mut [f32; BANDS]) -> [f32; BANDS] {
    std::array::from_fn(|band| {
        let level = (bands[band] + SILENCE / 4.0).ln();
        mean[band] += 0.01 * (level - mean[band]);
        (level - mean[band]).clamp(-3.0, 3.0)
    })
}

fn dot(a: &[f32; BANDS], b: &[f32; BANDS]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn power(decibel: f32) -> f32 {
    10_f32.powf(decibel / 10.0)
}

fn decibel(power: f32) -> f32 {
    10.0 * power.max(1e-9).log10()
}
