//! Call quality: the E-model (ITU-T G.107, 06/2015) over a leg's loss and delay, and the summary of a leg.
//!
//! All codecs are rated on the narrowband scale, where G.711 without impairment has R = 93.2 and MOS 4.41. What a
//! wideband codec gains in bandwidth is thus not seen; what the network takes is, and legs can be compared.

/// How a leg's audio is coded and concealed, as far as quality goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QualityCodec {
    /// G.711 with silence for lost packets.
    G711,
    /// G.711 with loss concealment (G.711 appendix I or as good).
    G711Concealed,
    /// G.722 at 64 kbit/s with concealment.
    G722,
    /// Opus for speech with its concealment.
    Opus,
}

impl QualityCodec {
    /// Equipment impairment Ie and packet-loss robustness Bpl.
    ///
    /// - G.711: 0 and 4.3, concealed 0 and 25.1 (ITU-T G.113 appendix I, 10 ms packets, random loss).
    /// - G.722: assumed. G.113 rates it on the wideband scale alone (Ie,wb = 13, better than G.711's 36), so Ie = 0;
    ///   for its Bpl that of GSM-EFR, 10, the least that appendix I gives a concealed codec that keeps a state.
    /// - Opus: 2.0 and 16.0, measured for narrowband at 11 kbit/s CBR under random loss (Alahmadi, Pocta, Melvin, "An
    ///   adaptive bitrate switching algorithm for speech applications in context of WebRTC", ACM TOMM 17(4), 2021). Calls
    ///   run at more than 11 kbit/s, so its Ie is an upper bound.
    const fn impairment(self) -> (f64, f64) {
        match self {
            Self::G711 => (0.0, 4.3),
            Self::G711Concealed => (0.0, 25.1),
            Self::G722 => (0.0, 10.0),
            Self::Opus => (2.0, 16.0),
        }
    }

    /// Whether lost packets are concealed.
    pub const fn conceals(self) -> bool {
        !matches!(self, Self::G711)
    }
}

/// What happens to the audio between one mouth and the other ear.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Path {
    /// From mouth to ear: network, jitter buffer, packets, codec. Below zero counts as zero.
    pub one_way_delay_ms: f64,
    /// Lost or discarded, 0 to 100 % of the packets.
    pub loss_percent: f64,
    /// Mean run of losses over that of random loss (G.107 section 7.5); below 1 counts as 1.
    pub burst_ratio: f64,
}

/// Scores of one path with one codec.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Transmission rating R with the delay in it, at most 93.2; below zero where nothing can be understood.
    pub r_factor: f64,
    /// MOS-CQE, 1 to 4.5: conversation, with the delay in it.
    pub mos_cq: f64,
    /// MOS for listening, 1 to 4.5: as if there were no delay.
    pub mos_lq: f64,
}

impl Scores {
    /// Rate a path.
    pub fn rate(codec: QualityCodec, path: &Path) -> Self {
        let r_factor = r_factor(codec, path);
        let undelayed = Path {
            one_way_delay_ms: 0.0,
            ..*path
        };
        Self {
            r_factor,
            mos_cq: mos(r_factor),
            mos_lq: mos(self::r_factor(codec, &undelayed)),
        }
    }
}

/// Transmission rating R (G.107 equation 7-1) of a call that has the default values in all but `codec` and `path`.
pub fn r_factor(codec: QualityCodec, path: &Path) -> f64 {
    let delay_ms = bounded(path.one_way_delay_ms, MAX_DELAY_MS);
    let noise = noise_dbm0p();
    let ro = 15.0 - 1.5 * (SLR + noise);
    ro - simultaneous(ro, noise, delay_ms) - delay(ro, noise, delay_ms) - equipment(codec, path)
}

/// Mean opinion score of a rating (G.107 annex B), never below 1, where the polynomial dips between R = 0 and 6.5.
pub fn mos(r_factor: f64) -> f64 {
    let r = r_factor.clamp(0.0, 100.0);
    (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).max(1.0)
}

// Default values (G.107 table 2).
/// Send loudness rating, dB.
const SLR: f64 = 8.0;
/// Receive loudness rating, dB.
const RLR: f64 = 2.0;
/// Sidetone masking rating, dB.
const STMR: f64 = 15.0;
/// D-value of the telephone, send side.
const DS: f64 = 3.0;
/// D-value of the telephone, receive side.
const DR: f64 = 3.0;
/// Talker echo loudness rating, dB.
const TELR: f64 = 65.0;
/// Weighted echo path loss, dB.
const WEPL: f64 = 110.0;
/// Quantisation distortion units.
const QDU: f64 = 1.0;
/// Circuit noise, dBm0p.
const NC: f64 = -70.0;
/// Noise floor at the receive side, dBmp.
const NFOR: f64 = -64.0;
/// Room noise at the send and the receive side, dB(A).
const ROOM: f64 = 35.0;
/// Least delay that is noticed, ms (mT), and the sensitivity to it (sT): the default class of talk.
const NOTICED_MS: f64 = 100.0;
const SENSITIVITY: f64 = 1.0;
/// No call is left long before this.
const MAX_DELAY_MS: f64 = 60_000.0;

/// Sum of all noise at the 0 dBr point, No (section 7.2).
fn noise_dbm0p() -> f64 {
    let olr = SLR + RLR;
    let send_room = ROOM - SLR - DS - 100.0 + 0.004 * (ROOM - olr - DS - 14.0).powi(2);
    let listener_sidetone = STMR + DR;
    let effective_room = ROOM + 10.0 * (1.0 + 10f64.powf((10.0 - listener_sidetone) / 10.0)).log10();
    let receive_room = RLR - 121.0 + effective_room + 0.008 * (effective_room - 35.0).powi(2);
    let floor = NFOR + RLR;
    let power: f64 = [NC, send_room, receive_room, floor]
        .into_iter()
        .map(|level| 10f64.powf(level / 10.0))
        .sum();
    10.0 * power.log10()
}

/// Impairments simultaneous with the voice, Is (section 7.3): loudness, sidetone, quantisation.
fn simultaneous(ro: f64, noise: f64, delay_ms: f64) -> f64 {
    let x = SLR + RLR + 0.2 * (64.0 + noise - RLR);
    let loudness = 20.0 * (root_1p(x / 8.0, 8.0) - x / 8.0);
    let quantisation = 37.0 - 15.0 * QDU.log10();
    let g = 1.07 + 0.258 * quantisation + 0.0602 * quantisation.powi(2);
    let y = (ro - 100.0) / 15.0 + 46.0 / 8.4 - g / 9.0;
    let z = 46.0 / 30.0 - g / 40.0;
    let distortion = 15.0 * (1.0 + 10f64.powf(y) + 10f64.powf(z)).log10();
    loudness + sidetone(delay_ms) + distortion
}

/// Ist.
fn sidetone(delay_ms: f64) -> f64 {
    let echo = (-delay_ms / 4.0).exp() * 10f64.powf(-TELR / 10.0);
    let rating = -10.0 * (10f64.powf(-STMR / 10.0) + echo).log10();
    12.0 * root_1p((rating - 13.0) / 6.0, 8.0)
        - 28.0 * root_1p((rating + 1.0) / 19.4, 35.0)
        - 13.0 * root_1p((rating - 3.0) / 33.0, 13.0)
        + 29.0
}

/// Impairments by delay, Id (section 7.4): talker echo, listener echo, and delay itself. STMR is within 9 to 20 dB, where
/// the talker echo needs no correction.
fn delay(ro: f64, noise: f64, delay_ms: f64) -> f64 {
    let distance = ((1.0 + delay_ms / 10.0) / (1.0 + delay_ms / 150.0)).log10();
    let echo_rating = TELR - 40.0 * distance + 6.0 * (-0.3 * delay_ms.powi(2)).exp();
    let talker = -1.5 * (noise - RLR) - (80.0 + 2.5 * (echo_rating - 14.0));
    let talker_echo =
        (talker / 2.0 + (talker.powi(2) / 4.0 + 100.0).sqrt() - 1.0) * (1.0 - (-delay_ms).exp());
    let round_trip_ms = 2.0 * delay_ms;
    let listener = ro - 10.5 * (WEPL + 7.0) * (round_trip_ms + 1.0).powf(-0.25);
    let listener_echo = listener / 2.0 + (listener.powi(2) / 4.0 + 169.0).sqrt();
    talker_echo + listener_echo + pure_delay(delay_ms)
}

/// Idd.
fn pure_delay(delay_ms: f64) -> f64 {
    if delay_ms <= NOTICED_MS {
        return 0.0;
    }
    let x = (delay_ms / NOTICED_MS).log2();
    let order = 6.0 * SENSITIVITY;
    25.0 * (root_1p(x, order) - 3.0 * root_1p(x / 3.0, order) + 2.0)
}

/// Effective equipment impairment by codec and loss, Ie-eff (section 7.5).
fn equipment(codec: QualityCodec, path: &Path) -> f64 {
    let (ie, robustness) = codec.impairment();
    let loss = bounded(path.loss_percent, 100.0);
    ie + (95.0 - ie) * loss / (loss / path.burst_ratio.max(1.0) + robustness)
}

/// `value` between 0 and `max`; what is no number is 0.
fn bounded(value: f64, max: f64) -> f64 {
    if value > 0.0 { value.min(max) } else { 0.0 }
}

/// (1 + x^n)^(1/n), by which the model joins a flat line to a steep one. The odd powers only ever see x > 0.
fn root_1p(x: f64, order: f64) -> f64 {
    (1.0 + x.abs().powf(order)).powf(1.0 / order)
}

/// Round trips of a leg.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RoundTrip {
    /// The one measured last.
    pub last_ms: f64,
    /// The shortest.
    pub min_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// What the peer's last report says of our stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeerReception {
    /// Lost in its last interval, 0 to 1.
    pub fraction_lost: f64,
    /// Lost in all; negative where duplicates outweigh loss.
    pub lost: i32,
    /// Jitter.
    pub jitter_ms: f64,
}

/// How a leg is doing: all of it so far, unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LegQuality {
    /// Packets that arrived.
    pub received: u64,
    /// Packets that did not; negative where duplicates outweigh loss.
    pub lost: i64,
    /// Packets that the jitter buffer discarded as too late or too early.
    pub discarded: u64,
    /// Packets that arrived again.
    pub duplicates: u64,
    /// Lost in the interval before our last report, 0 to 1.
    pub fraction_lost: f64,
    /// Interarrival jitter now.
    pub jitter_ms: f64,
    /// `None` until the peer's reports allow for one.
    pub round_trip: Option<RoundTrip>,
    /// `None` until it reports.
    pub peer: Option<PeerReception>,
    /// What we hear of the peer, by the E-model with the codec of now; `None` until packets came. The delay in it is half
    /// the round trip, where one is known, and our own.
    pub scores: Option<Scores>,
}
