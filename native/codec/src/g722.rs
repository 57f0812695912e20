//! G.722 at 64 kbit/s (mode 1): two ADPCM coders behind a pair of quadrature mirror filters (ITU-T G.722).
//!
//! 16 kHz samples go in pairs to octets: six bits of the lower band, two of the higher. The integer arithmetic is that
//! of the Recommendation's tables and blocks, so both ends hold bit-exact state; block names in the comments are its.

/// Coefficients h0, h2, … h22 of the 24-tap filter (table 4); it is symmetric, so h1, h3, … are these backwards.
const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];

/// Decision levels of the lower band's 60-level quantiser, for a step of 4096 (table 14).
const LOWER_LEVELS: [i32; 29] = [
    35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023, 1121, 1219,
    1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919,
];
/// Output of the 60-level quantiser, by the six bits of a code (table 20).
const LOWER_OUTPUT: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232, -9360,
    -8576, -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776, -2400, -2032, -1688,
    -1360, -1040, -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856,
    7192, 6576, 6000, 5456, 4944, 4464, 4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136,
    -432, -136,
];
/// Output of the 15-level quantiser that feeds the predictor, by the upper four bits of a lower code (table 18).
const LOWER_COARSE: [i32; 16] = [
    0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584, 1200, 0,
];
/// What a lower code does to the logarithm of the step (tables 15 and 16).
const LOWER_GROWTH: [i32; 16] = [
    -60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60,
];
/// The higher band: decision level, output and growth by code (tables 14, 18 and 15).
const HIGHER_LEVEL: i32 = 564;
const HIGHER_OUTPUT: [i32; 4] = [-7408, -1616, 7408, 1616];
const HIGHER_GROWTH: [i32; 4] = [798, -214, 798, -214];

/// 2048·2^(n/32): the mantissa of the step (table 17).
const ANTILOG: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896,
    2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];

/// The encoder of one stream.
#[derive(Debug, Clone, Default)]
pub struct Encoder {
    filter: Filter,
    lower: Lower,
    higher: Higher,
}

impl Encoder {
    /// Encode pairs of samples at 16 kHz into the caller's slice; as many pairs as the shorter of both holds.
    /// Returns how many octets.
    pub fn encode_into(&mut self, samples: &[i16], out: &mut [u8]) -> usize {
        let (pairs, _) = samples.as_chunks::<2>();
        for (code, &[first, second]) in out.iter_mut().zip(pairs) {
            let (even, odd) = self.filter.push(i32::from(second), i32::from(first));
            let lower = self.lower.encode((even + odd) >> 14);
            let higher = self.higher.encode((even - odd) >> 14);
            *code = higher << 6 | lower;
        }
        pairs.len().min(out.len())
    }
}

/// The decoder of one stream.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    filter: Filter,
    lower: Lower,
    higher: Higher,
}

impl Decoder {
    /// Decode octets to pairs of samples at 16 kHz into the caller's slice; as many as the shorter of both holds.
    /// Returns how many samples.
    pub fn decode_into(&mut self, codes: &[u8], out: &mut [i16]) -> usize {
        let (pairs, _) = out.as_chunks_mut::<2>();
        let octets = codes.len().min(pairs.len());
        for (pair, &code) in pairs.iter_mut().zip(codes) {
            let lower = self.lower.decode(code & 0x3f);
            let higher = self.higher.decode(code >> 6);
            let (first, second) = self.filter.push(lower - higher, lower + higher);
            *pair = [first, second].map(|sum| saturate(sum >> 11) as i16);
        }
        2 * octets
    }
}

/// The two halves of the quadrature mirror filter, the same for both directions.
#[derive(Debug, Clone, Default)]
struct Filter {
    /// Oldest first.
    even: [i32; 12],
    odd: [i32; 12],
}

impl Filter {
    /// The sums over the newer (`even`) and the older (`odd`) half-rate line.
    fn push(&mut self, even: i32, odd: i32) -> (i32, i32) {
        for (line, sample) in [(&mut self.even, even), (&mut self.odd, odd)] {
            line.copy_within(1.., 0);
            line[11] = sample;
        }
        let backwards = QMF.iter().rev();
        let even = self.even.iter().zip(backwards).map(|(x, h)| x * h).sum();
        let odd = self.odd.iter().zip(&QMF).map(|(x, h)| x * h).sum();
        (even, odd)
    }
}

/// The lower band: 0 to 4 kHz, six bits.
#[derive(Debug, Clone)]
struct Lower {
    step: Step,
    predictor: Predictor,
}

impl Default for Lower {
    fn default() -> Self {
        Self {
            step: Step::new(18_432, 8),
            predictor: Predictor::default(),
        }
    }
}

impl Lower {
    fn encode(&mut self, sample: i32) -> u8 {
        let difference = saturate(sample - self.predictor.estimate);
        let magnitude = ones_complement_magnitude(difference);
        // QUANTL: the first level that the magnitude does not reach.
        let level = LOWER_LEVELS.partition_point(|&level| magnitude >= (level * self.step.size) >> 12) as u8;
        // The code words of table 14: 61 down to 32 above zero; 63, 62, then 31 down to 4 below.
        let code = match (difference < 0, level) {
            (false, _) => 61 - level,
            (true, 0 | 1) => 63 - level,
            (true, _) => 33 - level,
        };
        self.adapt(code);
        code
    }

    fn decode(&mut self, code: u8) -> i32 {
        let difference = (self.step.size * LOWER_OUTPUT[usize::from(code)]) >> 15;
        let sample = limit(self.predictor.estimate + difference);
        self.adapt(code);
        sample
    }

    /// Only the upper four bits steer the adaptation, so that the lower two may be robbed for data.
    fn adapt(&mut self, code: u8) {
        let coarse = usize::from(code >> 2);
        let difference = (self.step.size * LOWER_COARSE[coarse]) >> 15;
        self.step.adapt(LOWER_GROWTH[coarse]);
        self.predictor.adapt(difference);
    }
}

/// The higher band: 4 to 8 kHz, two bits.
#[derive(Debug, Clone)]
struct Higher {
    step: Step,
    predictor: Predictor,
}

impl Default for Higher {
    fn default() -> Self {
        Self {
            step: Step::new(22_528, 10),
            predictor: Predictor::default(),
        }
    }
}

impl Higher {
    fn encode(&mut self, sample: i32) -> u8 {
        let difference = saturate(sample - self.predictor.estimate);
        let large = ones_complement_magnitude(difference) >= (HIGHER_LEVEL * self.step.size) >> 12;
        let code = match (difference < 0, large) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        self.decode(code);
        code
    }

    fn decode(&mut self, code: u8) -> i32 {
        let code = usize::from(code & 3);
        let difference = (self.step.size * HIGHER_OUTPUT[code]) >> 15;
        let sample = limit(self.predictor.estimate + difference);
        self.step.adapt(HIGHER_GROWTH[code]);
        self.predictor.adapt(difference);
        sample
    }
}

/// The quantiser's step: its logarithm leaks and grows with the codes (blocks LOGSCL, SCALEL; LOGSCH, SCALEH).
#[derive(Debug, Clone)]
struct Step {
    log: i32,
    log_max: i32,
    shift: i32,
    size: i32,
}

impl Step {
    fn new(log_max: i32, shift: i32) -> Self {
        let mut step = Self {
            log: 0,
            log_max,
            shift,
            size: 0,
        };
        step.scale();
        step
    }

    fn adapt(&mut self, growth: i32) {
        self.log = (((self.log * 127) >> 7) + growth).clamp(0, self.log_max);
        self.scale();
    }

    fn scale(&mut self) {
        let mantissa = ANTILOG[(self.log >> 6 & 31) as usize];
        let exponent = (self.log >> 11) - self.shift;
        self.size = if exponent < 0 {
            mantissa >> -exponent
        } else {
            mantissa << exponent
        } << 2;
    }
}

/// The adaptive predictor of a band: two poles and six zeros (block 4).
#[derive(Debug, Clone, Default)]
struct Predictor {
    /// What the next sample should be, and the zeros' part in it.
    estimate: i32,
    zeros_part: i32,
    poles: [i32; 2],
    zeros: [i32; 6],
    /// The newest first: reconstructed samples, partly reconstructed ones, quantised differences.
    reconstructed: [i32; 2],
    partial: [i32; 2],
    differences: [i32; 6],
}

impl Predictor {
    fn adapt(&mut self, difference: i32) {
        let reconstructed = saturate(self.estimate + difference);
        let partial = saturate(self.zeros_part + difference);
        self.adapt_poles(partial);
        self.adapt_zeros(difference);
        self.partial = [partial, self.partial[0]];
        self.reconstructed = [reconstructed, self.reconstructed[0]];
        self.differences.copy_within(..5, 1);
        self.differences[0] = difference;
        self.predict();
    }

    /// UPPOL2, UPPOL1: by the signs of the partial reconstruction; the limits keep the poles inside the unit circle.
    fn adapt_poles(&mut self, partial: i32) {
        let same = self.partial.map(|earlier| (earlier < 0) == (partial < 0));
        let first = saturate(4 * self.poles[0]);
        let pull = if same[0] { (-first).min(32_767) } else { first };
        let push = if same[1] { 128 } else { -128 };
        let second = ((pull >> 7) + push + ((self.poles[1] * 32_512) >> 15)).clamp(-12_288, 12_288);
        let push = if same[0] { 192 } else { -192 };
        let bound = 15_360 - second;
        let first = (push + ((self.poles[0] * 32_640) >> 15)).clamp(-bound, bound);
        self.poles = [first, second];
    }

    /// UPZERO: sign by sign against the earlier differences; they only leak while the difference is zero.
    fn adapt_zeros(&mut self, difference: i32) {
        for (zero, earlier) in self.zeros.iter_mut().zip(&self.differences) {
            let push = match (difference, (*earlier < 0) == (difference < 0)) {
                (0, _) => 0,
                (_, true) => 128,
                (_, false) => -128,
            };
            *zero = saturate(push + ((*zero * 32_640) >> 15));
        }
    }

    /// FILTEP, FILTEZ, PREDIC.
    fn predict(&mut self) {
        let term = |(coefficient, value): (&i32, &i32)| (coefficient * saturate(2 * value)) >> 15;
        let poles_part = saturate(self.poles.iter().zip(&self.reconstructed).map(term).sum());
        self.zeros_part = saturate(self.zeros.iter().zip(&self.differences).map(term).sum());
        self.estimate = saturate(poles_part + self.zeros_part);
    }
}

/// To 16 bits.
fn saturate(value: i32) -> i32 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX))
}

/// A band's reconstructed signal has 15 bits (block LIMIT).
fn limit(value: i32) -> i32 {
    value.clamp(-16_384, 16_383)
}

fn ones_complement_magnitude(value: i32) -> i32 {
    if value < 0 { !value } else { value }
}
