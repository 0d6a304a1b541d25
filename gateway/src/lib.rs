//! Tidegate: the gateway binary and the embeddable broker.
