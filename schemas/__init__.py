"""The words: Avro contracts, their record classes, topics and protos. Imports nothing of ours."""
