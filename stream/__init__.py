"""The belt: how messages move. The only folder that imports a Kafka client."""
