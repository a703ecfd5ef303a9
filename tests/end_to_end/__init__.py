"""Does the whole system keep its promises, on real Kafka, Postgres and HTTP?"""
