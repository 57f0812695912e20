use crate::OpusError;
use opusic_sys as sys;
use std::ptr::NonNull;

/// What an encoder is tuned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Application {
    /// Speech: the linear predictive layer, in-band FEC.
    Voip,
    /// The transform layer alone: 2.5 ms of look-ahead instead of 6.5, and much cheaper.
    RestrictedLowDelay,
}

/// How an encoder works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What it is tuned for.
    pub application: Application,
    /// Target of the variable bit rate, 500 to 512000.
    pub bitrate_bps: u32,
    /// Effort, 0 to 10.
    pub complexity: u8,
    /// Packets of at most two octets in silence, which need not be sent.
    pub dtx: bool,
    /// In-band FEC for this share of lost packets, 0 to 100; 0 makes none. [`Application::Voip`] alone has it.
    pub fec_loss_percent: u8,
}

/// A mono encoder of speech.
#[derive(Debug)]
pub struct Encoder {
    state: NonNull<sys::OpusEncoder>,
}

// SAFETY: the state is plain memory that this value owns alone; libopus keeps nothing per thread.
unsafe impl Send for Encoder {}

impl Encoder {
    /// An encoder of samples at 8000, 12000, 16000, 24000 or 48000 Hz.
    ///
    /// # Errors
    /// [`OpusError::Argument`] for another rate or a setting out of its range, [`OpusError::Library`] without memory.
    pub fn new(rate_hz: u32, settings: Settings) -> Result<Self, OpusError> {
        let application = match settings.application {
            Application::Voip => sys::OPUS_APPLICATION_VOIP,
            Application::RestrictedLowDelay => sys::OPUS_APPLICATION_RESTRICTED_LOWDELAY,
        };
        let mut error = sys::OPUS_OK;
        // SAFETY: the arguments are numbers, and a place for one that outlives the call.
        let state = unsafe { sys::opus_encoder_create(rate_hz as i32, 1, application, &raw mut error) };
        let Some(state) = NonNull::new(state) else {
            return Err(OpusError::count(error).err().unwrap_or(OpusError::Argument));
        };
        let mut encoder = Self { state };
        let bitrate_bps = i32::try_from(settings.bitrate_bps).map_err(|_| OpusError::Argument)?;
        encoder.set(sys::OPUS_SET_BITRATE_REQUEST, bitrate_bps)?;
        encoder.set(sys::OPUS_SET_COMPLEXITY_REQUEST, i32::from(settings.complexity))?;
        encoder.set(sys::OPUS_SET_SIGNAL_REQUEST, sys::OPUS_SIGNAL_VOICE)?;
        encoder.set(sys::OPUS_SET_DTX_REQUEST, i32::from(settings.dtx))?;
        encoder.set(
            sys::OPUS_SET_INBAND_FEC_REQUEST,
            i32::from(settings.fec_loss_percent > 0),
        )?;
        encoder.set(
            sys::OPUS_SET_PACKET_LOSS_PERC_REQUEST,
            i32::from(settings.fec_loss_percent),
        )?;
        Ok(encoder)
    }

    /// Effort from the next frame on, 0 to 10.
    ///
    /// # Errors
    /// [`OpusError::Argument`] beyond that.
    pub fn set_complexity(&mut self, complexity: u8) -> Result<(), OpusError> {
        self.set(sys::OPUS_SET_COMPLEXITY_REQUEST, i32::from(complexity))
    }

    /// Encode one frame of 2.5, 5, 10, 20, 40 or 60 ms into `packet`; returns its octets.
    ///
    /// # Errors
    /// [`OpusError::Argument`] for another length, [`OpusError::Room`] where `packet` is too short for the frame.
    pub fn encode(&mut self, frame: &[i16], packet: &mut [u8]) -> Result<usize, OpusError> {
        if packet.is_empty() {
            return Err(OpusError::Room);
        }
        let samples = i32::try_from(frame.len()).map_err(|_| OpusError::Argument)?;
        let room = i32::try_from(packet.len()).unwrap_or(i32::MAX);
        // SAFETY: the state is ours and alive; `frame` is good for `samples` samples of one channel, of which libopus
        // reads none if their count is no frame; `packet` is good for `room` octets.
        let result = unsafe {
            sys::opus_encode(
                self.state.as_ptr(),
                frame.as_ptr(),
                samples,
                packet.as_mut_ptr(),
                room,
            )
        };
        OpusError::count(result)
    }

    /// How much later a sample comes out of a decoder, in samples of the encoder's rate.
    pub fn lookahead(&mut self) -> usize {
        let mut samples = 0;
        // SAFETY: the state is ours and alive; this request takes a pointer to an `opus_int32`.
        let result = unsafe {
            sys::opus_encoder_ctl(
                self.state.as_ptr(),
                sys::OPUS_GET_LOOKAHEAD_REQUEST,
                &raw mut samples,
            )
        };
        debug_assert_eq!(result, sys::OPUS_OK);
        samples as usize
    }

    fn set(&mut self, request: i32, value: i32) -> Result<(), OpusError> {
        // SAFETY: the state is ours and alive; every request that is made takes one `opus_int32` by value.
        let result = unsafe { sys::opus_encoder_ctl(self.state.as_ptr(), request, value) };
        OpusError::count(result).map(drop)
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: created by `opus_encoder_create`, and destroyed nowhere else.
        unsafe { sys::opus_encoder_destroy(self.state.as_ptr()) }
    }
}
