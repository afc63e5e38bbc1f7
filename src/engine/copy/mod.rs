//! Executes COPY and ADD.
