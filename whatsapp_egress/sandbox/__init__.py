"""A Graph API, a Tenant Service and a broker to try and test the gateway against."""
