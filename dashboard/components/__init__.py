"""What the pages are made of: the only modules beside the pages that draw with Streamlit."""
