//! What a program needs to talk to Vaxel.
