"""Recording inside trainers: callbacks for Hugging Face's and Lightning's, which load the library they are named for."""
